"""A Claude login as it is kept: an access token, and the refresh token that renews it where there is one. Pure.

from `claude setup-token`: sk-ant-oat01-…                      lasts a year, no refresh token
from Claude Code's own login: {"claudeAiOauth": {accessToken, refreshToken, expiresAt, scopes, …}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from moat.api import CapturedTokens, Credential, GrantFailed, HttpRequest, HttpResponse, clean_token

from moat_provider_claude.placeholders import SCOPES

NAME = "claude"
PREFIX = "sk-ant-oat"
TOKEN_URL = "https://platform.claude.com/v1/oauth/token"  # noqa: S105 # an address
CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"  # Claude Code's own, public: a refresh token is bound to it
HINT = "run: moat grant claude"


@dataclass(frozen=True, slots=True)
class Login:
    """refresh: "" where there is none. metadata: scopes and subscription, which Claude Code wants to see."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def credential(self, source: str) -> Credential:
        """Return it as it is stored."""
        secret = json.dumps({"access": self.access, "refresh": self.refresh})
        metadata = {**self.metadata, "renewable": "yes" if self.refresh else "no"}
        return Credential(NAME, secret, source, metadata, self.expires_at)


def stored(credential: Credential) -> Login:
    """Return what a stored credential holds."""
    pair = json.loads(credential.secret)
    return Login(pair["access"], pair["refresh"], credential.expires_at, credential.metadata)


def read_login(text: str) -> Login:
    """Return the login that text is: a token, or Claude Code's credentials file. Raises GrantFailed."""
    if text.lstrip().startswith("{"):
        return _of_file(text)
    token = clean_token(text, NAME)
    if not token.startswith(PREFIX):
        hint = "run: moat grant anthropic" if token.startswith("sk-ant-api") else "run: claude setup-token"
        raise GrantFailed(f"this is no token of a Claude subscription, which begins with {PREFIX}", hint=hint)
    return Login(token, metadata={"scopes": "user:inference"})


def renewing(login: Login) -> HttpRequest:
    """Return the request that spends the refresh token."""
    fields = {"grant_type": "refresh_token", "refresh_token": login.refresh, "client_id": CLIENT_ID}
    return HttpRequest("POST", TOKEN_URL, {"Content-Type": "application/json"}, json.dumps(fields).encode())


def renewed(login: Login, answer: HttpResponse, now: datetime) -> Login:
    """Return the login that an answer of the token endpoint brings. Raises GrantFailed for one that makes no sense."""
    try:
        found = json.loads(answer.body)
        access, refresh = found["access_token"], found.get("refresh_token") or login.refresh
        end = datetime.fromtimestamp(now.timestamp() + float(found["expires_in"]), UTC)
        tokens = {"access_token": clean_token(access, NAME), "refresh_token": clean_token(refresh, NAME)}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise GrantFailed("claude answered a renewal with something else than tokens") from None
    return captured(login, CapturedTokens(tokens, end))


def captured(login: Login, tokens: CapturedTokens) -> Login:
    """Return login with tokens that its endpoint handed out; not every answer has a new refresh token."""
    access = tokens.tokens.get("access_token")
    if access is None:
        raise GrantFailed("the answer has no access token")
    return Login(access, tokens.tokens.get("refresh_token", login.refresh), tokens.expires_at, login.metadata)


def _of_file(text: str) -> Login:
    try:
        found = json.loads(text)["claudeAiOauth"]
        access, refresh = found["accessToken"], found.get("refreshToken") or ""
        scopes = " ".join(map(str, found.get("scopes") or ())) or SCOPES
        end = datetime.fromtimestamp(float(found["expiresAt"]) / 1000, UTC) if found.get("expiresAt") else None
        metadata = {"scopes": scopes, "subscription": str(found.get("subscriptionType") or "max")}
        access, refresh = clean_token(access, NAME), refresh and clean_token(refresh, NAME)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        raise GrantFailed("this is no credentials file of Claude Code", hint=HINT) from None
    return Login(access, refresh, end, metadata)
