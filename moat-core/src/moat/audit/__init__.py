"""What was done with whose authority, so that a change of it is seen: hash chains, signed heads, one SQLite file."""
