"""The management API's values, as both ends see them. Additive only: fields are never renamed or removed.

Plain dataclasses, so that the CLI needs no pydantic; the server validates what comes in with `pydantic.TypeAdapter`.
Unknown fields are ignored. No answer ever holds a secret of a credential; the run token is in RegisterResponse only.

    POST   /v1/setup         SetupRequest    → SetupResponse      what grants put into a run; changes nothing
    POST   /v1/runs          RegisterRequest → RegisterResponse   201; with auth_token: register again
    GET    /v1/runs                          → [RunInfo]          no tokens
    GET    /v1/runs/{id}                     → RunInfo            live or ended, with its counters
    PATCH  /v1/runs/{token}  PatchRequest    → 204
    DELETE /v1/runs/{token}  EndRequest      → RunInfo
    GET    /v1/health                        → Health
    GET    /v1/metrics                       → text           what operators count, as Prometheus reads it
    POST   /v1/shutdown                      → 202
    POST   /v1/routes/{agent} RouteRequest   → RouteResponse      where its ports are reached from outside
    DELETE /v1/routes/{agent}                → 204                whether it was there or not
    GET    /v1/events                        → server-sent events: run_started, run_stopped, exchange, grant
    POST   /v1/audit         NoteRequest     → 204                entered for good
    POST   /v1/audit/seal                    → 204                all that happened is entered, and signed if it can be
    errors → {"error": {"code", "message", "hint"}}; code: the name of a class of `moat.api.errors`
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import Literal

from moat.api.light import dataclass
from moat.daemon.extras import (
    AwsConfig,
    ExtraHeader,
    Extras,
    GivenCredential,
    HostPort,
    McpServer,
    ResponseTransformer,
    RoutedPort,
    TokenSubstitution,
    UnwantedHeader,
)
from moat.redaction import SecretMarks

CAPABILITIES = ("doors", "transparent", "hosts-policy", "network-rules", "profiles", "restore", "extras",
                "routing", "published", "refresh", "events", "host-ports",
                "trace-bodies", "session-policies")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What a run would look like to its contributors. command and workspace are shown to `moat_configure_run` only.

    mcp_grants: what its MCP servers are asked with, of which a run sees nothing; their secrets are among the known.
    """

    grants: tuple[str, ...] = ()
    name: str = ""
    workspace: str = "/"
    command: tuple[str, ...] = ()
    network_policy: str = "permissive"
    network_allow: tuple[str, ...] = ()
    network_rules: tuple[str, ...] = ()
    profile: str = ""
    mcp_grants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetupResponse:
    """Placeholders and files for inside, and the hosts that the grants are spent on (`host` or `host:port`).

    ca_certificate: the public certificate of the installation's CA, PEM. rules: what is done to requests, in words and
    without any value. known: marks of the secrets that the daemon knows, to be left out of what is kept of the run.
    """

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[str, str, bool], ...] = ()
    hosts: tuple[str, ...] = ()
    ca_certificate: str = ""
    rules: tuple[str, ...] = ()
    known: SecretMarks = field(default_factory=SecretMarks, repr=False)


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """A run to be made. network_rules: lines, the first that fits decides. profile: whose credentials are spent.

    needs_door: the runtime hands over sockets; otherwise the run is identified by its token.

    plan_sha256: of the whole plan, for the audit. secrets: names of variables whose values were fetched for the run.

    credentials … aws_config, host_ports: as `extras` says. endpoints: ports to be routed under the run's name.
    trace_bodies: whether headers and the beginnings of bodies are traced.

    listen_on: with auth_token, an address of this machine where this one run is to be served by token, since its door
    cannot be reached; launcher_pid: the process without which such a run is over, and without which any run is not
    waited for by the next daemon.
    """

    run_id: str
    name: str = ""
    grants: tuple[str, ...] = ()
    network_policy: str = "permissive"
    network_allow: tuple[str, ...] = ()
    runtime: str = ""
    workspace: str = "/"
    command: tuple[str, ...] = ()
    needs_door: bool = True
    auth_token: str = field(default="", repr=False)
    listen_on: str = ""
    launcher_pid: int = 0
    network_rules: tuple[str, ...] = ()
    profile: str = ""
    plan_sha256: str = ""
    secrets: tuple[str, ...] = ()
    credentials: tuple[GivenCredential, ...] = ()
    extra_headers: tuple[ExtraHeader, ...] = ()
    remove_headers: tuple[UnwantedHeader, ...] = ()
    token_substitutions: tuple[TokenSubstitution, ...] = ()
    response_transformers: tuple[ResponseTransformer, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    aws_config: AwsConfig | None = None
    endpoints: tuple[RoutedPort, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    trace_bodies: bool = False


@dataclass(frozen=True, slots=True)
class DoorInfo:
    """Where the gate connects, and the one-time nonce it must know.

    places: sockets that it opens beyond the door's own, for endpoints: name, kind, host or file, port.
    """

    folder: str
    nonce: str = field(repr=False)
    places: tuple[tuple[str, str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RegisterResponse:
    """A registered run. proxy_port: on loopback for runs identified by token, or on listen_on."""

    run_id: str
    auth_token: str = field(repr=False)
    proxy_port: int
    door: DoorInfo | None = None


@dataclass(frozen=True, slots=True)
class PatchRequest:
    """The second phase: the sandbox exists."""

    container_id: str


@dataclass(frozen=True, slots=True)
class EndRequest:
    """A run is over. exit_code: None when it never started."""

    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """Which ports of a run are to be reached from outside, under an agent's name."""

    run_id: str
    endpoints: tuple[RoutedPort, ...]


@dataclass(frozen=True, slots=True)
class RouteResponse:
    """Where they are. urls: by the endpoint's name. published: its port of 127.0.0.1."""

    agent: str
    port: int
    urls: dict[str, str] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoteRequest:
    """What the user did beside the daemon, for the audit. run_id: "" for the installation's chain. at: when."""

    kind: Literal["granted", "revoked", "approved", "exec", "exec-ended", "attached", "detached"]
    facts: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class GrantState:
    """A grant that live runs spend. static: not renewed here. Times are ISO 8601 in UTC, "" where there is none."""

    profile: str
    grant: str
    state: Literal["static", "fresh", "failing", "revoked"] = "fresh"
    expires_at: str = ""
    refreshed_at: str = ""
    next_at: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The daemon's state. started_at: ISO 8601, UTC. routing_port: 0 while nothing is routed.

    bound_run_count: the runs with values that are in its memory only, so that the next daemon cannot serve them.
    task_count: what it does at once; steady while nothing comes and goes.
    """

    pid: int
    version: str
    proxy_port: int
    run_count: int
    started_at: str
    uptime_s: float
    worker_pid: int
    capabilities: tuple[str, ...] = CAPABILITIES
    commit: str = ""
    routing_port: int = 0
    grants: tuple[GrantState, ...] = ()
    bound_run_count: int = 0
    task_count: int = 0


def needed_capabilities(request: SetupRequest | RegisterRequest) -> tuple[str, ...]:
    """Return what a daemon must be capable of, or it would leave out a part of request without a word."""
    wanted: dict[str, object] = {"network-rules": request.network_rules, "profiles": request.profile}
    if isinstance(request, RegisterRequest):
        wanted |= {"extras": extras_of(request) != Extras(), "routing": request.endpoints}
        wanted["host-ports"] = request.host_ports
        wanted["session-policies"] = request.aws_config is not None and request.aws_config.session_policy
        wanted["published"] = any(each.publish for each in request.endpoints)
        wanted["trace-bodies"] = request.trace_bodies
    return tuple(name for name, value in wanted.items() if value)


def extras_of(request: RegisterRequest) -> Extras:
    """Return what a registration asks for beyond grants and policy."""
    return Extras(**{each.name: getattr(request, each.name) for each in fields(Extras) if hasattr(request, each.name)})
