"""Finding plugins and calling their hooks; the only place where a plugin's mistakes are caught."""
