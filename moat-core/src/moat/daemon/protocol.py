"""The management API's values, as both ends see them. Additive only: fields are never renamed or removed.

Plain dataclasses, so that the CLI needs no pydantic; the server validates what comes in with `pydantic.TypeAdapter`.
Unknown fields are ignored. No answer ever holds a secret of a credential; the run token is in RegisterResponse only.

    POST   /v1/setup         SetupRequest    → SetupResponse      what grants put into a run; changes nothing
    POST   /v1/runs          RegisterRequest → RegisterResponse   201; with auth_token: register again
    GET    /v1/runs                          → [RunInfo]          no tokens
    PATCH  /v1/runs/{token}  PatchRequest    → 204
    DELETE /v1/runs/{token}  EndRequest      → RunInfo
    GET    /v1/health                        → Health
    POST   /v1/shutdown                      → 202
    errors → {"error": {"code", "message", "hint"}}; code: the name of a class of `moat.api.errors`
"""

from __future__ import annotations

from dataclasses import dataclass, field

CAPABILITIES = ("doors", "transparent", "hosts-policy", "network-rules")


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What a run would look like to its contributors. command and workspace are shown to `moat_configure_run` only."""

    grants: tuple[str, ...] = ()
    name: str = ""
    workspace: str = "/"
    command: tuple[str, ...] = ()
    network_policy: str = "permissive"
    network_allow: tuple[str, ...] = ()
    network_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetupResponse:
    """Placeholders and files for inside, and the hosts that the grants are spent on (`host` or `host:port`).

    ca_certificate: the public certificate of the installation's CA, PEM.
    """

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    mounts: tuple[tuple[str, str, bool], ...] = ()
    hosts: tuple[str, ...] = ()
    ca_certificate: str = ""


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """A run to be made. network_rules: lines, the first that fits decides.

    needs_door: the runtime hands over sockets; otherwise the run is identified by its token.

    listen_on: with auth_token, an address of this machine where this one run is to be served by token, since its door
    cannot be reached; launcher_pid: the process without which such a run is over.
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


@dataclass(frozen=True, slots=True)
class DoorInfo:
    """Where the gate connects, and the one-time nonce it must know."""

    folder: str
    nonce: str = field(repr=False)


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
class Health:
    """The daemon's state. started_at: ISO 8601, UTC."""

    pid: int
    version: str
    proxy_port: int
    run_count: int
    started_at: str
    uptime_s: float
    worker_pid: int
    capabilities: tuple[str, ...] = CAPABILITIES
