"""Endpoints: services of a run's own, at an address that never leaves it. Values only; the proxy serves them.

    http://127.0.0.1:19080/_moat/kube/api/v1/pods ─▶ rules, client certificate ─▶ https://10.1.2.3:6443/api/v1/pods
                           where: ProxyPath            how: Forward

For clients that must be told another address than the service's: its certificate is of a private authority, it wants a
certificate from the client, or its name is nobody's business inside.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from moat.api.credentials import Credential
from moat.api.errors import MoatError
from moat.api.rules import Rule

_PREFIX = re.compile(r"/_moat/[a-z0-9][a-z0-9-]{0,62}/")
PROXY_ORIGIN = "http://127.0.0.1:19080"  # where the proxy listens in every sealed run


@dataclass(frozen=True, slots=True)
class ProxyPath:
    """Where: below this path of the proxy's own address, as in `/_moat/kube/`."""

    prefix: str

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None or self.prefix == "/_moat/probe/":
            raise MoatError(f"{self.prefix!r} is no path of an endpoint: write it as /_moat/NAME/")

    @property
    def url(self) -> str:
        """What tools inside are told, with the final slash. Sealed runs only: elsewhere the port is another one."""
        return f"{PROXY_ORIGIN}{self.prefix}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service. address: host or host:port; judged when dialled like any other.

    tls: with it, port 443 by default; without it 80, and no credential is ever sent. ca: PEM of the only authorities
    that are trusted, "" for the installation's. client_certificate: PEM of certificate, chain and key; a secret.
    """

    address: str
    tls: bool = True
    ca: str = field(default="", repr=False)
    client_certificate: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Forward:
    """How: HTTP/1.1 and upgrades, asking for what follows the prefix. rules: for upstream's address, and here only."""

    upstream: Upstream
    rules: tuple[Rule, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service: where the run finds it and how it is served. grant: whose credential is spent there."""

    where: ProxyPath
    how: Forward
    grant: str = ""


class EndpointProvider(ABC):
    """Services that come with a grant. name: the grant's; one object may be a CredentialProvider too."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        """Return what a run with this grant can connect to. Pure: the daemon calls it at every registration."""
