"""Where a GitHub token comes from, how it is checked, and where it is spent.

GITHUB_TOKEN ▶ GH_TOKEN ▶ gh auth token (asks first) ▶ hidden prompt      the first that is there
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from moat.api import (
    ContainerSetup,
    Credential,
    CredentialProvider,
    GrantFailed,
    Host,
    HttpRequest,
    Match,
    Rule,
    SetHeader,
    clean_token,
    rejection,
)

VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN")
CHECK_URL = "https://api.github.com/user"
API_HOSTS = ("api.github.com", "uploads.github.com")

# What git itself asks for over HTTPS (gitprotocol-http(5)) and LFS (its API lives under info/lfs). Everything else on
# github.com is the web site, which takes no token and must not be given one.
GIT_PATHS = ("/*/*/info/refs", "/*/*/git-upload-pack", "/*/*/git-receive-pack", "/*/*/info/lfs/**")

# The prefix and length of a classic token: gh refuses to start without something of that shape.
PLACEHOLDER = "ghp_moatPlaceholder000000000000000000000"


class GitHub(CredentialProvider):
    """A GitHub token: classic, fine-grained, or gh's own."""

    name = "github"
    summary = "GitHub: API, uploads, git over HTTPS"
    hosts = (*API_HOSTS, "github.com")
    variables = VARIABLES

    async def grant(self, host: Host) -> Credential:
        """Take the first token there is; ask for one when there is none."""
        for variable in VARIABLES:
            if token := host.env.get(variable, "").strip():
                return await self._checked(token, variable, host)
        if token := await _token_of_gh(host):
            return await self._checked(token, "gh", host)
        return await self._checked(await host.ask("GitHub token"), "prompt", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Check a token that was handed over."""
        return await self._checked(secret, "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Bearer for the API, Basic for git: git's smart HTTP endpoint refuses Bearer."""
        bearer = f"Bearer {credential.secret}"
        pair = base64.b64encode(f"x-access-token:{credential.secret}".encode()).decode()
        return [
            *(SetHeader(Match(host), "Authorization", bearer, self.name) for host in API_HOSTS),
            SetHeader(Match("github.com", paths=GIT_PATHS), "Authorization", f"Basic {pair}", self.name),
        ]

    def container(self, credential: Credential) -> ContainerSetup:
        """Let gh believe that it is logged in, and git fail rather than wait for a password."""
        del credential
        return ContainerSetup(env={"GH_TOKEN": PLACEHOLDER, "GIT_TERMINAL_PROMPT": "0"})

    async def _checked(self, token: str, source: str, host: Host) -> Credential:
        token = clean_token(token, self.name)
        if host.validate:
            headers = {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "User-Agent": "moat",
            }
            response = await host.fetch(HttpRequest("GET", CHECK_URL, headers))
            if response.status != 200:
                raise rejection(self.name, source, response.status)
        return Credential(self.name, token, source)


async def _token_of_gh(host: Host) -> str:
    """Return gh's token, with the user's leave; empty, with a note when that helps, where there is none."""
    try:
        result = await host.run("gh", "auth", "token")
    except GrantFailed as failure:
        host.say(f"note: {failure.problem}")
        return ""
    if result is None:
        return ""
    token = result.stdout.strip()
    if result.exit_code != 0 or not token:
        host.say("note: gh is installed but has no token (gh auth login makes one)")
        return ""
    return token if await host.confirm("use the token that gh is logged in with?") else ""
