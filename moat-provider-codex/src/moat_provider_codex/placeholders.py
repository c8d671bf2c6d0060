"""What stands inside of runs in the place of credentials. Known to everybody, worth nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

ACCESS = "moat-placeholder-of-an-access-token"
REFRESH = "moat-placeholder-of-a-refresh-token"
KEY = "sk-moat-placeholder"

KEY_VARIABLES = ("OPENAI_API_KEY", "CODEX_API_KEY")
FAR_S = 4_102_444_800  # 2100


def identity(metadata: Mapping[str, str]) -> str:
    """Return an ID token that nobody signed: Codex reads from it which account it works for, and believes it."""
    claims = {
        "email": "moat@example.invalid",
        "exp": FAR_S,
        "https://api.openai.com/auth": {
            "chatgpt_plan_type": metadata.get("plan", "plus"),
            "chatgpt_account_id": metadata.get("account", ""),
            "chatgpt_user_id": "moat",
        },
    }
    return ".".join((_part({"alg": "none", "typ": "JWT"}), _part(claims), "bm90LXNpZ25lZA"))


def _part(value: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
