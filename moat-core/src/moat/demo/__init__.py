"""`moat demo`: the main job on this machine alone, each claim checked. A throw-away home, key, API and daemon."""
