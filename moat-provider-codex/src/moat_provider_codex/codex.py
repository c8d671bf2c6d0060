"""A ChatGPT login for Codex: where it comes from, how it is renewed, where it is spent.

Codex inside ─▶ chatgpt.com ─────▶ Authorization, ChatGPT-Account-ID
      └───────▶ auth.openai.com ─▶ placeholder ⇄ refresh token, the new tokens stay outside
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moat.api import (
    CapturedTokens,
    CaptureToken,
    Credential,
    CredentialProvider,
    GrantFailed,
    GrantRevoked,
    Host,
    HttpRequest,
    Match,
    ReplaceToken,
    Rule,
    SetHeader,
    rejection,
)

from moat_provider_codex.login import HINT, NAME, Login, captured, read_login, renewed, renewing, stored
from moat_provider_codex.placeholders import ACCESS, REFRESH, identity

API, AUTH = "chatgpt.com", "auth.openai.com"
ACCOUNT_HEADER = "ChatGPT-Account-ID"
CHECK_URL = f"https://{API}/backend-api/wham/accounts/check"


class Codex(CredentialProvider):
    """A ChatGPT login (Plus, Pro, Business, Enterprise)."""

    name = NAME
    summary = "ChatGPT (Plus, Pro, Business): Codex's login, no API key"
    hosts = (API, AUTH)
    refresh_every_s = 24 * 3600.0
    client_renews_s = 10.0

    async def grant(self, host: Host) -> Credential:
        """Take Codex's own login, when the user agrees."""
        folder = host.env.get("CODEX_HOME") or f"{host.env.get('HOME', '/')}/.codex"
        path = Path(folder) / "auth.json"
        data = host.read(path)
        if data is None:
            raise GrantFailed(f"Codex is not logged in here: there is no {path}", hint=HINT)
        login = read_login(data.decode(errors="replace"))
        if not await host.confirm(f"use the login of Codex in {path}?"):
            hint = f"say yes, or: moat grant codex --with-token < {path}"
            raise GrantFailed("you did not agree, or nobody could be asked; nothing was saved", hint=hint)
        host.say("note: moat renews this login from now on; Codex outside may ask you to log in again")
        return await _checked(login, str(path), host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Check an auth.json that was handed over."""
        return await _checked(read_login(secret), "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Send the login where the client sends one; let Codex renew it without seeing it."""
        login = stored(credential)
        api, tokens = Match(API, when_header="Authorization"), Match(AUTH, ("POST",), ("/oauth/token",))
        given = {"access_token": ACCESS, "refresh_token": REFRESH, "id_token": identity(login.metadata)}
        return [
            SetHeader(api, "Authorization", f"Bearer {login.access}", NAME),
            SetHeader(api, ACCOUNT_HEADER, login.metadata.get("account", ""), NAME, is_secret=False),
            ReplaceToken(tokens, REFRESH, login.refresh, ("body",), grant=NAME),
            CaptureToken(tokens, NAME, {"grant_type": "refresh_token", "refresh_token": REFRESH}, given),
        ]

    async def refresh(self, credential: Credential, host: Host) -> Credential:
        """Renew it."""
        return (await _renewed(stored(credential), host)).credential(credential.source)

    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        """Keep what Codex asked for."""
        return captured(stored(credential), tokens).credential(credential.source)


async def _checked(login: Login, source: str, host: Host) -> Credential:
    if not host.validate:
        return login.credential(source)
    if login.expires_at is not None and login.expires_at <= host.now():
        login = await _renewed(login, host)
    headers = {"Authorization": f"Bearer {login.access}", ACCOUNT_HEADER: login.metadata["account"]}
    answer = await host.fetch(HttpRequest("GET", CHECK_URL, {**headers, "User-Agent": "moat"}))
    if answer.status == 401:
        raise rejection(NAME, source, answer.status)
    if answer.status != 200:  # what stands before the service turns some programs away, whoever they are
        host.say(f"note: {API} answered HTTP {answer.status}, so it is not known yet whether the login is good")
    return login.credential(source)


async def _renewed(login: Login, host: Host) -> Login:
    answer = await host.fetch(renewing(login), timeout_s=30.0)
    if answer.status in (400, 401, 403):
        raise GrantRevoked("codex's service says that the login was revoked, or used elsewhere", hint=HINT)
    if answer.status != 200:
        raise GrantFailed(f"codex's service answered HTTP {answer.status} to the renewal of the login")
    return renewed(login, answer)
