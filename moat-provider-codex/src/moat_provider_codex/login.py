"""A ChatGPT login as it is kept: an access token, and the refresh token that renews it. Pure.

from `codex login`: {"tokens": {id_token, access_token, refresh_token, account_id}, "last_refresh": …}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moat.api import CapturedTokens, Credential, GrantFailed, HttpRequest, HttpResponse, clean_token

NAME = "codex"
TOKEN_URL = "https://auth.openai.com/oauth/token"  # noqa: S105 # an address
CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"  # Codex's own, public: a refresh token is bound to it
HINT = "run: codex login, then: moat grant codex"
_CLAIMS = "https://api.openai.com/auth"


@dataclass(frozen=True, slots=True)
class Login:
    """metadata: the account and its plan, which Codex wants to see."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def credential(self, source: str) -> Credential:
        """Return it as it is stored."""
        secret = json.dumps({"access": self.access, "refresh": self.refresh})
        return Credential(NAME, secret, source, self.metadata, self.expires_at)


def stored(credential: Credential) -> Login:
    """Return what a stored credential holds."""
    pair = json.loads(credential.secret)
    return Login(pair["access"], pair["refresh"], credential.expires_at, credential.metadata)


def read_login(text: str) -> Login:
    """Return the login that Codex's auth.json is. Raises GrantFailed, which quotes nothing of it."""
    try:
        found = json.loads(text)
        tokens = found.get("tokens")
        if not tokens and found.get("OPENAI_API_KEY"):
            raise GrantFailed("this login of Codex is an API key", hint="run: moat grant openai")
        access, refresh = clean_token(tokens["access_token"], NAME), clean_token(tokens["refresh_token"], NAME)
        claims = read_claims(tokens.get("id_token") or "").get(_CLAIMS) or {}
        account = str(tokens.get("account_id") or claims.get("chatgpt_account_id") or "")
        metadata = {"account": clean_token(account, NAME), "plan": str(claims.get("chatgpt_plan_type") or "plus")}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GrantFailed("this is no auth.json of Codex with a ChatGPT login", hint=HINT) from None
    return Login(access, refresh, end_of(access), metadata)


def renewing(login: Login) -> HttpRequest:
    """Return the request that spends the refresh token."""
    fields = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": login.refresh}
    return HttpRequest("POST", TOKEN_URL, {"Content-Type": "application/json"}, json.dumps(fields).encode())


def renewed(login: Login, answer: HttpResponse) -> Login:
    """Return the login that an answer of the token endpoint brings. Raises GrantFailed for one that makes no sense."""
    try:
        found = json.loads(answer.body)
        given = {name: clean_token(found[name], NAME) for name in ("access_token", "refresh_token") if found.get(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GrantFailed("codex's service answered a renewal with something else than tokens") from None
    return captured(login, CapturedTokens(given))


def captured(login: Login, tokens: CapturedTokens) -> Login:
    """Return login with tokens that its endpoint handed out; not every answer has a new refresh token."""
    access = tokens.tokens.get("access_token")
    if access is None:
        raise GrantFailed("the answer has no access token")
    end = tokens.expires_at or end_of(access)
    return Login(access, tokens.tokens.get("refresh_token", login.refresh), end, login.metadata)


def end_of(token: str) -> datetime | None:
    """Return when a token says that it ends (RFC 7519 §4.1.4), None where it says nothing that can be read."""
    try:
        return datetime.fromtimestamp(float(read_claims(token)["exp"]), UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def read_claims(token: str) -> dict[str, Any]:
    """Return what a JWT says, unproven; nothing for what is none."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}
