"""Credentials and who obtains them: the ABC that most plugins implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Protocol

from moat.api.container import ContainerSetup
from moat.api.errors import GrantFailed, PluginError
from moat.api.rules import Rule
from moat.api.signing import Signed, Unsigned


@dataclass(frozen=True, slots=True)
class Credential:
    """One secret and what is known about it.

    provider: the provider's name, also the grant's name. secret: never shown, logged or sent into a run.
    source: where it came from, in a word the user knows ("gh", "GITHUB_TOKEN", "prompt"). metadata: not secret.
    """

    provider: str
    secret: str = field(repr=False)
    source: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CapturedTokens:
    """What a token endpoint handed to a client inside, by the names of `CaptureToken.tokens`; at least one.

    expires_at: reckoned from `expires_in` of the answer, None where it named none.
    """

    tokens: Mapping[str, str] = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a host command answered. stdout may hold a secret and is never shown."""

    exit_code: int
    stdout: str = field(repr=False)
    stderr: str


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request that a provider makes from the host. url: https. headers and body may hold secrets."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The answer to an HttpRequest; body at most 1 MiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Host(Protocol):
    """The only way a provider touches the machine; `moat.testing.FakeHost` stands in for it in tests."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of the command that the user typed."""
        ...

    @property
    def validate(self) -> bool:
        """Whether the user wants the credential checked against its service (`--no-validate` says no)."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Options of `moat grant` that the provider declared, as typed; absent ones are left out."""
        ...

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        ...

    def say(self, text: str) -> None:
        """Tell the user one line, on standard error."""
        ...

    async def run(self, *argv: str, timeout_s: float = 10.0) -> CommandResult | None:
        """Run a program without a shell and without input; None when it is not installed.

        Raises GrantFailed when it does not end in timeout_s.
        """
        ...

    async def ask(self, question: str, *, secret: bool = True) -> str:
        """Ask for one line, hidden when secret. Raises GrantFailed when nobody can be asked."""
        ...

    async def confirm(self, question: str) -> bool:
        """Ask yes or no; False when nobody can be asked."""
        ...

    async def fetch(self, request: HttpRequest, *, timeout_s: float = 10.0) -> HttpResponse:
        """Send one request through the `upstream` settings, following no redirect.

        Raises GrantFailed when the service cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class GrantOption:
    """One option of `moat grant <name>` beyond the common ones. name: as typed, for example "role" for --role."""

    name: str
    help: str
    required: bool = False


class CredentialProvider(ABC):
    """How to obtain one kind of secret, and where it is spent.

    hosts: every host that any credential of it can be spent on, for `moat plugins info`; `rules` say which.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    hosts: ClassVar[Sequence[str]] = ()
    grant_options: ClassVar[Sequence[GrantOption]] = ()
    refresh_every_s: ClassVar[float] = 0.0  # 0: a credential is good until its service says otherwise
    client_renews_s: ClassVar[float] = 0.0  # what clients that renew through CaptureToken get for it, after a 401

    @abstractmethod
    async def grant(self, host: Host) -> Credential:
        """Obtain a credential and check it. Runs in the CLI only.

        Raises GrantFailed(problem, hint): the user sees both, exit 1, and nothing is saved.
        """

    @abstractmethod
    async def accept(self, secret: str, host: Host) -> Credential:
        """Make a credential of a secret that the user handed over (`--with-token`), checked like any other.

        Raises GrantFailed like grant.
        """

    @abstractmethod
    def rules(self, credential: Credential) -> Sequence[Rule]:
        """Return where the credential is spent. Pure: the daemon calls it at every registration."""

    def container(self, credential: Credential) -> ContainerSetup:
        """Return the placeholders and files that tools inside need. Pure; must not contain the secret."""
        del credential
        return ContainerSetup()

    async def refresh(self, credential: Credential, host: Host) -> Credential:
        """Return a fresh credential in the place of one, or the same. Called in the daemon while runs spend it.

        Every refresh_every_s, earlier before its end, and when its service answers 401. Nobody can be asked, and
        host.env is the daemon's. Raises GrantRevoked when it will never work again, GrantFailed to be asked later.
        """
        del credential, host
        raise GrantFailed(f"the provider {self.name} renews no credentials", hint="run: moat plugins")

    async def sign(self, request: Unsigned, credential: Credential) -> Signed:
        """Return what a request that a `Sign` rule of this grant is for leaves with.

        Runs in the daemon, for ten seconds at most. credential: as it is stored now. Raises Unsignable, which the run
        is told; GrantFailed, which it is told as a 502; of whatever else it raises the words go to the log only.
        """
        del request, credential
        raise PluginError(f"the provider {self.name} signs no requests")

    def captured(self, credential: Credential, tokens: CapturedTokens) -> Credential:
        """Return credential with the tokens that a `CaptureToken` rule of it caught. Pure; the daemon stores it.

        Raises GrantFailed where they cannot be used: nothing is stored then, and the client is refused.
        """
        del credential, tokens
        raise GrantFailed(f"the provider {self.name} keeps no captured tokens", hint="run: moat plugins")
