"""What a registration may ask for beyond grants and policy: values of other tools on the socket. No behaviour.

Our own CLI sends names of grants. Whoever holds a credential itself sends it here; it is kept in memory only, so that
a run that has such values must be registered again after the daemon was replaced.
"""

from __future__ import annotations

from dataclasses import field, replace

from moat.api.light import dataclass
from moat.api.runs import HostPort as HostPort
from moat.api.runs import McpServer as McpServer  # what a workspace may ask for as well


@dataclass(frozen=True, slots=True)
class GivenCredential:
    """A header that is set on requests to host. value: the whole of it, a secret. grant: what the trace calls it."""

    host: str
    header: str
    value: str = field(repr=False)
    grant: str = ""


@dataclass(frozen=True, slots=True)
class ExtraHeader:
    """A header that is added to requests to host, beside the client's own. value: treated as a secret."""

    host: str
    header_name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnwantedHeader:
    """A header that is dropped from requests to host."""

    host: str
    header_name: str


@dataclass(frozen=True, slots=True)
class TokenSubstitution:
    """A placeholder that becomes a token in headers, path, query and body of requests to host."""

    host: str
    placeholder: str
    real_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResponseTransformer:
    """What is done to answers of host. kind: oauth-endpoint-workaround, or response-scrub, which always is."""

    host: str
    kind: str


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """A role to be assumed for the run, as `moat grant aws` would store it. session_duration: seconds, 0 for usual.

    session_policy: an IAM policy, as JSON, that limits every session further; "" for none.
    """

    role_arn: str
    region: str = ""
    session_duration: int = 0
    external_id: str = ""
    profile: str = ""
    session_policy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RoutedPort:
    """A port of the run's that is reached from outside at http://NAME.AGENT.localhost, and at a port of 127.0.0.1.

    publish: the latter; 0 for any that is free.
    """

    name: str
    port: int
    publish: int = 0


@dataclass(frozen=True, slots=True)
class Extras:
    """All of it. trace_bodies: as in RunContext.

    are_values_lost: the daemon was replaced, and with it went the values that are kept in memory only.
    """

    credentials: tuple[GivenCredential, ...] = ()
    extra_headers: tuple[ExtraHeader, ...] = ()
    remove_headers: tuple[UnwantedHeader, ...] = ()
    token_substitutions: tuple[TokenSubstitution, ...] = ()
    response_transformers: tuple[ResponseTransformer, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    aws_config: AwsConfig | None = None
    are_values_lost: bool = False
    host_ports: tuple[HostPort, ...] = ()
    trace_bodies: bool = False

    @property
    def grants(self) -> tuple[str, ...]:
        """The stored grants that are spent beside those of the run."""
        return tuple(server.grant for server in self.mcp_servers if server.grant)

    @property
    def has_values(self) -> bool:
        """Whether something in it is kept in memory only."""
        return bool(self.credentials or self.extra_headers or self.token_substitutions)

    def without_values(self) -> Extras:
        """Return what may be written down."""
        is_lost = self.has_values or self.are_values_lost
        return replace(self, credentials=(), extra_headers=(), token_substitutions=(), are_values_lost=is_lost)
