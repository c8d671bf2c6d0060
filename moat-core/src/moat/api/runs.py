"""A run in its stages: asked (RunSpec), live (RunContext), observed (RunInfo, ExchangeRecord)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moat.api.container import ContainerSetup, Limits, Mount
from moat.api.light import dataclass
from moat.api.services import Service

if TYPE_CHECKING:
    from moat.api.endpoints import Endpoint
    from moat.api.rules import Rule

PolicyMode = Literal["permissive", "strict"]
Verdict = Literal["allow", "deny"]
Decision = Literal["allow", "deny", ""]
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """One line of a policy: lets some requests out, or keeps them in. Made by `moat.net.rules` from its text.

    methods: upper case; empty means every one. host: pattern as in NetworkPolicy.allow, and `*`. path: pattern over the
    decoded path, `*` one segment, `**` any number; empty means every path.
    """

    verdict: Verdict
    methods: tuple[str, ...]
    host: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """May this leave? permissive: every public host. strict: only allow, and the hosts of grants.

    allow: host patterns, `host`, `*.host`, either with `:port`; without a port 443, and 80 for http.
    rules: come before both; the first that fits decides.
    """

    mode: PolicyMode = "permissive"
    allow: tuple[str, ...] = ()
    rules: tuple[NetworkRule, ...] = ()


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server, relayed at /mcp/NAME. url: https. grant: whose credential is sent in header; "" for none.

    tools: the only ones that may be called; empty for all.
    """

    name: str
    url: str
    grant: str = ""
    header: str = "Authorization"
    tools: tuple[str, ...] = ()


HOST_NAME = "host.moat.internal"  # what this machine is called in a run; .internal is nobody's (ICANN, 2024)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of this machine's loopback that a run may connect to. name: for a name of its own, "" for none."""

    port: int
    name: str = ""

    @property
    def host(self) -> str:
        """The name inside that leads there; HOST_NAME does too."""
        return f"{self.name}.{HOST_NAME}" if self.name else HOST_NAME

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Worktree:
    """The git worktree that a run works in. repository: the user's own (`.git`). admin: what it knows of this one."""

    repository: Path
    admin: Path
    branch: str


@dataclass(frozen=True, slots=True)
class SnapshotTimes:
    """When a run's workspace is kept. before: when the run begins. every_s: while it works; 0 for never."""

    before: bool = False
    every_s: int = 0


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What the user asked for: flags, moat.yaml and settings merged. Paths are absolute. profile: "" for the default.

    env: may hold secrets of the user's. ports: name → port inside that this machine may reach. published: name →
    port of loopback where it is reached, of those for which one was chosen. host_ports: of this machine, that the run
    may reach. services: stand beside the command. on_a_copy: the run gets a copy of the workspace. worktree: what
    the workspace is, where it is one. dependencies: what the image must have, as `config/dependencies.py` writes it.
    post_build: shell that is run in it, once. hidden: target of a mount, "/workspace" for the workspace → patterns
    of what of it is not shown, as `config/excludes.py` reads them. volumes: name → where the run finds it. pre_run:
    shell that is run inside before the command. agent: whose command it is. files: absolute path inside → contents,
    the run's own. interactive: whether the run gets a terminal of its own; None for where moat has one. trace_bodies:
    as in RunContext. origins: what it is, as `runs/merge.py` calls it ("image", "env.NAME", "mount./inside") → who
    asked for it; what is not in it comes from the command line.
    """

    workspace: Path
    command: tuple[str, ...]
    name: str = ""
    grants: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    policy: NetworkPolicy = field(default_factory=NetworkPolicy)
    runtime: str = ""
    image: str = ""
    allow_sockets: bool = False
    profile: str = ""
    limits: Limits = field(default_factory=Limits)
    mcp: tuple[McpServer, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    host_ports: tuple[HostPort, ...] = ()
    services: tuple[Service, ...] = ()
    on_a_copy: bool = False
    worktree: Worktree | None = None
    dependencies: tuple[str, ...] = ()
    post_build: str = ""
    hidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    pre_run: tuple[str, ...] = ()
    interactive: bool | None = None
    snapshots: SnapshotTimes = field(default_factory=SnapshotTimes)
    trace_bodies: bool = False
    agent: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunContext:
    """A live run as the proxy sees it: immutable, replaced whole. token_sha256: hex; the token itself is not kept.

    is_open: False until the sandbox has proved that it is sealed; nothing but the probe is answered before.
    endpoints: served at the proxy's own address. why_closed: what a closed run is told instead of the usual.
    trace_bodies: whether its trace has headers and the beginnings of bodies.
    """

    run_id: str
    token_sha256: str
    policy: NetworkPolicy
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    is_open: bool = False
    probe_answer: str = field(default="", repr=False)
    endpoints: tuple[Endpoint, ...] = ()
    why_closed: str = ""
    trace_bodies: bool = False


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is written down about a run, and what observers are told. Times are ISO 8601 in UTC; no secret, no token."""

    run_id: str
    name: str
    runtime: str
    policy: PolicyMode
    grants: tuple[str, ...]
    workspace: str
    command: tuple[str, ...]
    started_at: str
    state: Literal["starting", "running", "stopped", "lost"] = "starting"
    container_id: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    requests: int = 0
    denied: int = 0
    profile: str = ""


@dataclasses.dataclass(frozen=True, slots=True)  # not a light one: it is made for every request
class ExchangeRecord:
    """One request and its answer, as traced (docs/trace.md). path never holds a query value, no field a secret.

    outcome: "forwarded", "denied", "failed" or "refused" (malformed or unidentified). via: "connect", "http",
    "transparent", "endpoint", "mcp", or "dns" for a host that got no address because the policy keeps it in. grants:
    names of those spent on it. allow_line: what to add to be let out, for denials.

    id: ours. client_id: what the client called it, to be believed as little as the client. first_byte_ms: from at to
    the upstream's answer, 0 without one. injected: names of header fields that carry a credential of ours. replaced:
    placeholders that became a secret; scrubbed: secrets taken out of the answer. decision: the policy's, "allow",
    "deny" or "" where it was not asked; rule: what made it. error: a word for programs, "" for none; reason says it.
    model and what follows: as the answer says, where a provider reads it (ReadUsage). cost_usd: an estimate, 0 for
    unknown. input_tokens include cached_tokens. The last four, without secrets, only where a run asked for them.
    """

    run_id: str
    at: str
    via: str
    method: str
    scheme: str
    host: str
    port: int
    path: str
    status: int
    outcome: str
    reason: str = ""
    grants: tuple[str, ...] = ()
    request_bytes: int = 0
    response_bytes: int = 0
    duration_ms: float = 0.0
    allow_line: str = ""
    version: int = 1
    id: str = ""
    client_id: str = ""
    first_byte_ms: float = 0.0
    query_keys: tuple[str, ...] = ()
    protocol: str = ""
    injected: tuple[str, ...] = ()
    replaced: int = 0
    scrubbed: int = 0
    decision: Decision = ""
    rule: str = ""
    error: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    request_headers: Fields = ()
    response_headers: Fields = ()
    request_body: str = ""
    response_body: str = ""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a plugin adds to a run (`moat_configure_run`)."""

    rules: tuple[Rule, ...] = field(default=(), repr=False)
    setup: ContainerSetup = field(default_factory=ContainerSetup)
