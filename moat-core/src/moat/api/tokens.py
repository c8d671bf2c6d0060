"""The commonest provider: one token in one header. A subclass declares and is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from moat.api.container import ContainerSetup
from moat.api.credentials import Credential, CredentialProvider, Host, HttpRequest
from moat.api.errors import GrantFailed
from moat.api.rules import Match, OnlyPlaceholder, ReadUsage, Rule, SetHeader

MAX_TOKEN_CHARS = 16_384  # far above any real token; a file pasted by mistake is refused


class TokenProvider(CredentialProvider):
    """One string in one header.

    hosts: exact hosts the token is spent on. header, prefix: `header: prefix + token`.
    variables: environment variables it may come from, first wins; each is set to the placeholder inside.
    question: the prompt. check_url: asked with GET, 2xx means accepted; empty means it cannot be checked.
    check_headers: sent along. placeholder: what tools inside find instead of the token. require: refuse requests whose
    header holds anything else than the placeholder, so that a key of the run's own is kept in and not replaced.
    usage: what is read from answers for the trace.
    """

    hosts: ClassVar[Sequence[str]]
    header: ClassVar[str] = "Authorization"
    prefix: ClassVar[str] = "Bearer "
    variables: ClassVar[Sequence[str]] = ()
    question: ClassVar[str]
    check_url: ClassVar[str] = ""
    check_headers: ClassVar[Sequence[tuple[str, str]]] = ()
    placeholder: ClassVar[str] = "moat-placeholder"
    require: ClassVar[bool] = False
    usage: ClassVar[Sequence[ReadUsage]] = ()

    async def grant(self, host: Host) -> Credential:
        """Take the token from the first variable that is set, else ask; check it."""
        for variable in self.variables:
            if token := host.env.get(variable, "").strip():
                return await self._checked(token, variable, host)
        return await self._checked(await host.ask(self.question), "prompt", host)

    async def accept(self, secret: str, host: Host) -> Credential:
        """Check a token that was handed over."""
        return await self._checked(secret, "standard input", host)

    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Set the header on every host."""
        value = self.prefix + credential.secret
        rules: list[Rule] = [SetHeader(Match(host), self.header, value, self.name) for host in self.hosts]
        if self.require:
            only = [OnlyPlaceholder(Match(host), self.header, self.placeholder, grant=self.name) for host in self.hosts]
            rules += only
        return [*rules, *self.usage]

    def container(self, credential: Credential) -> ContainerSetup:
        """Set every variable to the placeholder."""
        del credential
        return ContainerSetup(env=dict.fromkeys(self.variables, self.placeholder))

    async def _checked(self, token: str, source: str, host: Host) -> Credential:
        token = clean_token(token, self.name)
        if host.validate and self.check_url:
            await self._check(token, source, host)
        return Credential(self.name, token, source)

    async def _check(self, token: str, source: str, host: Host) -> None:
        headers = {**dict(self.check_headers), self.header: self.prefix + token, "User-Agent": "moat"}
        response = await host.fetch(HttpRequest("GET", self.check_url, headers))
        if response.status // 100 == 2:
            return
        raise rejection(self.name, source, response.status)


def clean_token(token: str, name: str) -> str:
    """Return token without surrounding white space.

    Raises GrantFailed when nothing is left or it holds what cannot stand in a header (RFC 9110 §5.5).
    """
    token = token.strip()
    if not token:
        raise GrantFailed(f"the {name} token is empty", hint=f"run: moat grant {name}")
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise GrantFailed(
            f"this is no {name} token: it has spaces, line breaks or non-ASCII characters, or is too long",
            hint=f"run: moat grant {name}",
        )
    return token


def rejection(name: str, source: str, status: int) -> GrantFailed:
    """Return what to raise when a service did not answer 2xx to a check."""
    if status in (401, 403):
        return GrantFailed(
            f"{name} rejected the token from {source} (HTTP {status}); nothing was saved",
            hint=f"make a new token, then run: moat grant {name}",
        )
    return GrantFailed(
        f"{name} answered HTTP {status} to the check of the token from {source}; nothing was saved",
        hint=f"try again later, or store it unchecked: moat grant {name} --no-validate",
    )
