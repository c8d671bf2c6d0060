"""Endpoints: services of a run's own, at an address that never leaves it. Values only; the proxy serves them.

    http://127.0.0.1:19080/_moat/kube/api/v1/pods ─▶ rules, client certificate ─▶ https://10.1.2.3:6443/api/v1/pods
             where: ProxyPath │ Tcp │ UnixPath         how: Forward │ Stream │ Respond

For clients that must be told another address than the service's: its certificate is of a private authority, it wants a
certificate from the client, its name is nobody's business inside, or there is no service and the provider answers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar, TypeAlias

from moat.api.credentials import Credential
from moat.api.errors import MoatError, PluginError
from moat.api.http import DEFAULT_PORTS, Headers
from moat.api.rules import Rule

PROXY_ORIGIN = "http://127.0.0.1:19080"  # where the proxy listens in every sealed run
MAX_QUESTION_BYTES, MAX_REPLY_BYTES = 65_536, 262_144  # of bodies, which cross a channel that everything else uses too

_PREFIX = re.compile(r"/(?:_moat/[a-z0-9][a-z0-9-]{0,62}|mcp/[a-z0-9][a-z0-9_-]{0,62})/")
_PATH = re.compile(r"(?:/[A-Za-z0-9_.~:@+,=-]+)*/?")
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DOOR_PORTS = frozenset((53, 19080))
_MAX_PATH_BYTES = 107  # sun_path holds 108 with its end (unix(7))
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OF_FRAMING = frozenset(("connection", "content-length", "transfer-encoding", "upgrade", "trailer", "keep-alive"))


@dataclass(frozen=True, slots=True)
class ProxyPath:
    """Where: below this path of the proxy's own address, as in `/_moat/kube/`; `/mcp/NAME/` is for MCP servers."""

    prefix: str

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None or self.prefix == "/_moat/probe/":
            raise MoatError(f"{self.prefix!r} is no path of an endpoint: write it as /_moat/NAME/")

    @property
    def url(self) -> str:
        """What tools inside are told, with the final slash. Sealed runs only: elsewhere the port is another one."""
        return f"{PROXY_ORIGIN}{self.prefix}"

    def rest_of(self, target: str) -> str | None:
        """Return what follows the path in a target below it, None for any other. An MCP server is at `/mcp/NAME`."""
        if target.startswith(self.prefix):
            return "/" + target.removeprefix(self.prefix)
        path, mark, query = target.partition("?")
        is_the_server = self.prefix.startswith("/mcp/") and f"{path}/" == self.prefix
        return mark + query if is_the_server else None


@dataclass(frozen=True, slots=True)
class Tcp:
    """Where: at a name that means this in its run and nothing else, whatever the name means outside.

    name: lower case, with a dot. tls: clients speak TLS, and get a certificate for name; else they speak in clear.
    Found through the proxy, and without it on 80, 443 and the ports that a run's endpoints have when it begins.
    """

    name: str
    port: int = 443
    tls: bool = True

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise MoatError(f"{self.name!r} is no name of an endpoint: write it as db.internal, in lower case")
        if not 0 < self.port < 65_536 or self.port in _DOOR_PORTS:
            raise MoatError(f"an endpoint cannot be at port {self.port}")

    @property
    def url(self) -> str:
        """What HTTP clients inside are told, with the final slash."""
        scheme = "https" if self.tls else "http"
        port = "" if self.port == DEFAULT_PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{self.name}{port}/"


@dataclass(frozen=True, slots=True)
class UnixPath:
    """Where: at a unix socket inside, which is there from the run's beginning. path: absolute, no link in it."""

    path: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        is_plain = path.is_absolute() and str(path) == self.path and ".." not in path.parts and self.path.isprintable()
        if not is_plain or len(path.parts) < 3 or len(self.path.encode()) > _MAX_PATH_BYTES:
            raise MoatError(f"{self.path!r} is no path of a socket inside: write it as /run/NAME/NAME.sock")


Where: TypeAlias = ProxyPath | Tcp | UnixPath


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service. address: host or host:port; judged when dialled like any other.

    path: what requests begin with there.
    tls: with it, port 443 by default; without it 80, and no credential is ever sent. ca: PEM of the only authorities
    that are trusted, "" for the installation's. client_certificate: PEM of certificate, chain and key; a secret.
    alpn: the protocols that it may speak; () for HTTP as the client speaks it, `("h2",)` for HTTP/2 whatever that is.
    is_here: a port of this machine's loopback, whatever may be dialled otherwise; no provider's may say so, see OnHost.
    """

    address: str
    tls: bool = True
    ca: str = field(default="", repr=False)
    client_certificate: str = field(default="", repr=False)
    alpn: tuple[str, ...] = ()
    path: str = ""
    is_here: bool = False

    def __post_init__(self) -> None:
        if self.path and _PATH.fullmatch(self.path) is None:
            raise MoatError(f"{self.path!r} is no path that an endpoint can begin with")


@dataclass(frozen=True, slots=True)
class Forward:
    """How: HTTP/1.1, HTTP/2 and upgrades, asking for what follows the prefix. rules: for upstream's address only."""

    upstream: Upstream
    rules: tuple[Rule, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Stream:
    """How: bytes both ways, of whatever protocol. prelude: what upstream is sent before the run's first byte; a secret.

    Nothing of what passes is read, so nothing is replaced, scrubbed or recorded but the count of bytes.
    """

    upstream: Upstream
    prelude: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.prelude and not self.upstream.tls:
            raise MoatError("a prelude is a secret, and is not sent in clear")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of a provider's. body may be a secret. headers: without what frames it, which the proxy adds.

    secrets: parts of body that the daemon's log must not show. The run is given them all the same.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not 200 <= self.status < 600:
            raise MoatError(f"{self.status} is no status of an answer")
        for name, value in self.headers:
            if _FIELD.fullmatch(name) is None or name.lower() in _OF_FRAMING:
                raise MoatError(f"{name!r} is no header of an answer")
            if not value.isprintable() or not value.isascii():
                raise MoatError(f"the value of {name} holds a control or non-ASCII character")
        if len(self.body) > MAX_REPLY_BYTES:
            raise MoatError(f"an answer of more than {MAX_REPLY_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Respond:
    """How: the provider answers. reply: always the same; without one, the daemon calls respond.

    name: tells several of a provider apart. Nothing leaves, so that the policy has no say.
    """

    name: str = ""
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class OnHost:
    """How: requests and bytes, to this port of this machine's loopback, which the user opened to the run.

    Made of `network.host_ports` and `--host-port` alone: an endpoint of a provider's that has it is refused.
    """

    port: int

    @property
    def upstream(self) -> Upstream:
        """The port as an upstream."""
        return Upstream(f"127.0.0.1:{self.port}", tls=False, is_here=True)


How: TypeAlias = Forward | Stream | Respond | OnHost


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service: where the run finds it and how it is served. grant: whose credential is spent there."""

    where: Where
    how: How
    grant: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.how, Stream) and isinstance(self.where, ProxyPath):
            raise MoatError("bytes cannot be streamed at a path: use Tcp or UnixPath")
        if isinstance(self.how, OnHost) and not isinstance(self.where, Tcp):
            raise MoatError("a port of this machine is found at a name and port: use Tcp")


@dataclass(frozen=True, slots=True)
class Question:
    """A request at a Respond endpoint. name: the endpoint's. target: what follows its path, with the query."""

    run_id: str
    name: str
    method: str
    target: str
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)


class EndpointProvider(ABC):
    """Services that come with a grant. name: the grant's; one object may be a CredentialProvider too."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        """Return what a run with this grant can connect to. Pure: the daemon calls it at every registration."""

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Return the answer to a request at a Respond endpoint. Runs in the daemon, for ten seconds at most.

        credential: as it is stored now. Whatever it raises is a 502 inside, and its words go to the daemon's log only.
        """
        raise PluginError(f"{self.name} has no answer for {question.name!r}")
