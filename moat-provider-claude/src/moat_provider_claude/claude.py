"""A Claude subscription: where its login comes from, how it is renewed, where it is spent.

CLAUDE_CODE_OAUTH_TOKEN ▶ Claude Code's own login (asks first) ▶ `claude setup-token`, pasted

                                    ┌─ Authorization: Bearer, never beside a key
    Claude Code inside ─▶ the API ──┤
          │                         └─ anthropic-beta, which makes the API take such a token
          └─▶ the token endpoint: placeholder ⇄ refresh token, the new pair stays outside
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moat.api import (
    AddHeader,
    CapturedTokens,
    CaptureToken,
    Credential,
    CredentialProvider,
    GrantFailed,
    GrantRevoked,
    Host,
    HttpRequest,
    Instead,
    Match,
    RemoveHeader,
    ReplaceToken,
    RewriteResponse,
    Rule,
    SetHeader,
    rejection,
)

from moat_provider_claude.login import HINT, NAME, Login, captured, read_login, renewed, renewing, stored
from moat_provider_claude.placeholders import ACCESS, REFRESH
from moat_provider_claude.usage import read_usage

API = "api.anthropic.com"
TOKEN_HOSTS = ("platform.claude.com", "console.anthropic.com")  # today's, and that of older versions
TOKEN_PATHS = ("/v1/oauth/token",)
BETA = "oauth-2025-04-20"
VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"
KEYCHAIN = ("security", "find-generic-password", "-s", "Claude Code-credentials", "-w")
CHECK_URL = f"https://{API}/v1/messages"

# A token of `claude setup-token` may not ask for these, and Claude Code stumbles over the 403.
_PROFILE = Instead(200, '{"id": "", "email": "", "name": ""}')
_USAGE = Instead(200, '{"usage": {}}')


class Claude(CredentialProvider):
    """A Claude subscription (Pro, Max, Team, Enterprise)."""

    name = NAME
    summary = "Claude subscription (Pro, Max, Team): a login, no API key"
    hosts = (API, *TOKEN_HOSTS)
    variables = (VARIABLE,)
    refresh_every_s = 4 * 3600.0  # half of what an access token lasts
    client_renews_s = 10.0

    async def grant(self, host: Host) -> Credential:
        """Take the first login there is; ask for one when there is none."""
        if token := host.env.get(VARIABLE, "").strip():
            return await _checked(read_login(token), VARIABLE, host)
        text, source = await _own_login(host)
        if text and await host.confirm(f"use the login of Claude Code in {source}?"):
            login = read_login(text)
            if login.refresh:
                host.say("note: moat renews this login from now on; Claude Code outside may ask you to log in again")
            return await _checked(login, source, host)
        host.say("run `claude setup-token` in another terminal, and paste what it prints")
        return await _checked(read_login(await host.ask("Claude token")), "claude setup-token", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Check a token, or a credentials file, that was handed over."""
        return await _checked(read_login(secret), "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Send the login where the client sends one; let Claude Code renew it without seeing it."""
        login, usage = stored(credential), read_usage(API, NAME)
        api = Match(API, when_header="Authorization")
        rules: list[Rule] = [
            SetHeader(api, "Authorization", f"Bearer {login.access}", NAME),
            RemoveHeader(api, "x-api-key", NAME),
            AddHeader(api, "anthropic-beta", BETA, NAME, is_secret=False),
            RewriteResponse(Match(API, ("GET",), ("/api/oauth/profile",)), _PROFILE, (403,), grant=NAME),
            RewriteResponse(Match(API, ("GET",), ("/api/oauth/usage",)), _USAGE, (403,), grant=NAME),
            replace(usage, match=replace(usage.match, when_header="Authorization")),
        ]
        if not login.refresh:
            return rules
        for host in TOKEN_HOSTS:
            match = Match(host, ("POST",), TOKEN_PATHS)
            request = {"grant_type": "refresh_token", "refresh_token": REFRESH}
            tokens = {"access_token": ACCESS, "refresh_token": REFRESH}
            rules.append(ReplaceToken(match, REFRESH, login.refresh, ("body",), grant=NAME))
            rules.append(CaptureToken(match, NAME, request, tokens))
        return rules

    async def refresh(self, credential: Credential, host: Host) -> Credential:
        """Renew a login that can be; of any other find out whether it is still good."""
        login = stored(credential)
        if login.refresh:
            return (await _renewed(login, host)).credential(credential.source)
        answer = await host.fetch(_check(login))
        if answer.status == 401:
            raise GrantRevoked("claude says that the token is not valid any more", hint=HINT)
        return credential

    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        """Keep the pair that Claude Code asked for."""
        return captured(stored(credential), tokens).credential(credential.source)


async def _own_login(host: Host) -> tuple[str, str]:
    """Return Claude Code's credentials on this machine and where they are; empty where there are none."""
    folder = host.env.get("CLAUDE_CONFIG_DIR") or f"{host.env.get('HOME', '/')}/.claude"
    path = Path(folder) / ".credentials.json"
    if data := host.read(path):
        return data.decode(errors="replace"), str(path)
    result = await host.run(*KEYCHAIN)  # macOS; elsewhere there is no such program
    if result is not None and result.exit_code == 0 and result.stdout.strip():
        return result.stdout.strip(), "the Keychain"
    return "", ""


async def _checked(login: Login, source: str, host: Host) -> Credential:
    if not host.validate:
        return login.credential(source)
    if login.refresh and login.expires_at is not None and login.expires_at <= host.now():
        login = await _renewed(login, host)
    answer = await host.fetch(_check(login))
    if answer.status not in (200, 400, 429, 529):
        raise rejection(NAME, source, answer.status)
    return login.credential(source)


def _check(login: Login) -> HttpRequest:
    """Return a message without content: who is known is told that it is malformed (400), who is not gets 401."""
    headers = {
        "Authorization": f"Bearer {login.access}",
        "anthropic-beta": BETA,
        "anthropic-version": "2023-06-01",
        "Content-Type": "application/json",
    }
    return HttpRequest("POST", CHECK_URL, headers, b"{}")


async def _renewed(login: Login, host: Host) -> Login:
    answer = await host.fetch(renewing(login), timeout_s=30.0)
    if answer.status in (400, 401, 403):
        raise GrantRevoked("claude says that the login was revoked, or used elsewhere", hint=HINT)
    if answer.status != 200:
        raise GrantFailed(f"claude answered HTTP {answer.status} to the renewal of the login")
    return renewed(login, answer, host.now())
