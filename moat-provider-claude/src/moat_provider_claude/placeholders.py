"""What stands inside of runs in the place of credentials. Known to everybody, worth nothing."""

from __future__ import annotations

ACCESS = "sk-ant-oat01-moat-placeholder-not-a-token"
REFRESH = "sk-ant-ort01-moat-placeholder-not-a-token"
KEY = "sk-ant-api03-moat-placeholder"

KEY_VARIABLE = "ANTHROPIC_API_KEY"
SCOPES = "user:inference user:profile"  # an empty list would make Claude Code believe that nobody is logged in
