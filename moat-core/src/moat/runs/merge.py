"""Joins what was asked for where: the command line before moat.yaml, that before config.yaml, that before the defaults.

Pure. Single values: the first that says something. Lists are joined: grants and allowed hosts each once, rules in the
order of those who asked, mounts by target and variables by name. Says of each thing who asked for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from moat.api.container import Limits, Mount
from moat.api.errors import UsageError
from moat.api.light import dataclass
from moat.api.runs import HostPort, McpServer, NetworkPolicy, NetworkRule, PolicyMode, RunSpec, SnapshotTimes, Worktree
from moat.api.services import Service
from moat.config.mounts import WORKSPACE, absolute, checked_target
from moat.config.settings import Settings

if TYPE_CHECKING:
    from moat.config.project import Container, Project

T = TypeVar("T")
V = TypeVar("V", bool, int)

FILE, SETTINGS, DEFAULT = "moat.yaml", "config.yaml", "default"
IMAGE_OPTION = "--image"  # or its variable, MOAT_IMAGE
_USUAL = Settings()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says, its variables included; "", () and None say nothing. workspace: absolute."""

    workspace: Path
    command: tuple[str, ...] = ()
    name: str = ""
    grants: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    policy: PolicyMode | None = None
    allowed: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    services: tuple[Service, ...] = ()
    runtime: str = ""
    image: str = ""
    allow_sockets: bool = False
    profile: str = ""
    on_a_copy: bool = False
    worktree: Worktree | None = None
    excluded: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    interactive: bool | None = None
    snapshot: bool | None = None
    snapshot_every_s: int | None = None
    trace_bodies: bool = False


def merged(options: Options, project: Project | None, settings: Settings, home: Path) -> RunSpec:
    """Return what the run is asked to be. home: what a leading `~` of a mount stands for.

    Variables that moat.yaml takes from secrets are there, empty, with the reference in their origin: see `secret_of`.
    Raises UsageError for a rule that is none.
    """
    origins: dict[str, str] = {"profile": "--profile" if options.profile else DEFAULT}
    spec = RunSpec(
        workspace=options.workspace,
        command=options.command,
        name=options.name,
        grants=_once(options.grants),
        env=dict(options.env),
        mounts=options.mounts,
        policy=_own_policy(options, settings, origins),
        runtime=_first(origins, "runtime", ("--runtime", options.runtime), (SETTINGS, settings.runtime)),
        image=_first(origins, "image", (IMAGE_OPTION, options.image), *_image_of(settings)),
        allow_sockets=options.allow_sockets,
        profile=options.profile,
        host_ports=tuple(dict.fromkeys(options.host_ports)),
        services=_services(options, None, origins),
        on_a_copy=options.on_a_copy,
        worktree=options.worktree,
        volumes=dict(options.volumes),
        interactive=options.interactive,
        snapshots=SnapshotTimes(bool(options.snapshot), options.snapshot_every_s or 0),
        hidden=_hidden({WORKSPACE: (("--exclude", options.excluded), (SETTINGS, settings.workspace.exclude))}, origins),
        trace_bodies=options.trace_bodies or settings.trace.bodies,
        origins=origins,
    )
    origins |= {f"host_port.{each}": "--host-port" for each in spec.host_ports}
    origins |= {f"grant.{name}": "--grant" for name in spec.grants}
    origins |= {"command": "command line"} if spec.command else {}
    origins |= {"name": "--name"} if spec.name else {}
    origins |= {"trace": "--trace-bodies" if options.trace_bodies else SETTINGS} if spec.trace_bodies else {}
    origins |= {f"volume.{name}": "--volume" for name in spec.volumes}
    said = {"interactive": ("--tty", options.interactive), "snapshots.before": ("--snapshot", options.snapshot),
            "snapshots.every": ("--snapshot-every", options.snapshot_every_s)}  # fmt: skip
    origins |= {key: flag for key, (flag, value) in said.items() if value is not None}
    origins |= {"workspace": "--copy"} if spec.on_a_copy else {"workspace": "--worktree"} if spec.worktree else {}
    return spec if project is None else _with_project(spec, options, project, settings, home)


def _with_project(spec: RunSpec, options: Options, project: Project, settings: Settings, home: Path) -> RunSpec:
    origins = dict(spec.origins)
    taken = {*(mount.target for mount in spec.mounts), *spec.volumes.values()}
    volumes = {
        name: target
        for name, text in project.volumes.items()
        if name not in spec.volumes and (target := checked_target(text)) not in taken
    }
    origins |= {f"volume.{name}": FILE for name in volumes}
    mounts = [
        Mount(absolute(each.source, options.workspace, home), target, each.read_only)
        for each in project.mounts
        if (target := checked_target(each.target)) not in taken
    ]
    origins |= {f"mount.{mount.target}": FILE for mount in mounts}
    origins |= {f"env.{name}": FILE for name in project.env if name not in options.env}
    secrets = {name: reference for name, reference in project.secrets.items() if name not in options.env}
    origins |= {f"env.{name}": f"{FILE}, {reference}" for name, reference in secrets.items()}
    origins |= {f"grant.{name}": FILE for name in project.grants if name not in spec.grants}
    limits = _limits(project.container)
    origins |= {f"limit.{name}": FILE for name in limits.names()}
    origins |= {f"mcp.{each.name}": FILE for each in project.mcp}
    origins |= {f"port.{name}": FILE for name in project.ports}
    dependencies = _dependencies(project)
    origins |= {f"dependency.{each}": FILE for each in dependencies}
    command = spec.command or _took(origins, "command", project.command)
    return replace(
        spec,
        command=command,
        agent="" if command else _took(origins, "agent", project.agent or ""),
        name=spec.name or _took(origins, "name", project.name or ""),
        grants=_once((*spec.grants, *project.grants)),
        env={**project.env, **dict.fromkeys(secrets, ""), **options.env},
        mounts=(*spec.mounts, *mounts),
        policy=_joined_policy(spec.policy, options, project, settings, origins),
        runtime=spec.runtime if options.runtime else _took(origins, "runtime", project.runtime or "") or spec.runtime,
        image=spec.image if options.image else _took(origins, "image", project.base_image or "") or spec.image,
        limits=limits,
        mcp=tuple(McpServer(each.name, each.url, each.grant or "", each.header, each.tools) for each in project.mcp),
        ports={name: entry.port for name, entry in project.ports.items()},
        published={name: entry.publish for name, entry in project.ports.items() if entry.publish},
        host_ports=_host_ports(options, project, origins),
        services=_services(options, project, origins),
        on_a_copy=spec.on_a_copy or _took(origins, "workspace", project.workspace.mode == "copy"),
        dependencies=dependencies,
        post_build=_took(origins, "post_build", project.hooks.post_build),
        interactive=_said(origins, "interactive", options.interactive, project.interactive),
        snapshots=SnapshotTimes(
            bool(_said(origins, "snapshots.before", options.snapshot, project.snapshots.before)),
            _said(origins, "snapshots.every", options.snapshot_every_s, project.snapshots.every) or 0,
        ),
        pre_run=_took(origins, "pre_run", project.hooks.pre_run),
        volumes={**volumes, **spec.volumes},
        hidden=_hidden(_excluded(options, project, settings, {mount.target for mount in mounts}), origins),
        trace_bodies=spec.trace_bodies or _took(origins, "trace", project.trace.bodies),
        origins=origins,
    )


def secret_of(spec: RunSpec, name: str) -> str:
    """Return the reference that a variable's value is still to be fetched from; "" where it has its value."""
    return spec.origins.get(f"env.{name}", "").partition(f"{FILE}, ")[2]


def rule_lines(policy: NetworkPolicy) -> tuple[str, ...]:
    """Return the rules of policy as the daemon is told them, the first that fits first."""
    if not policy.rules:
        return ()
    from moat.net.rules import rule_text

    return tuple(rule_text(rule) for rule in policy.rules)


def _own_policy(options: Options, settings: Settings, origins: dict[str, str]) -> NetworkPolicy:
    mode = options.policy or settings.network.policy
    origins["policy"] = "--policy" if options.policy else DEFAULT if mode == _USUAL.network.policy else SETTINGS
    origins |= {f"allow.{host}": "--allow-host" for host in options.allowed}
    rules = [*_rules(options.rules, "--rule", origins), *_rules(settings.network.rules, SETTINGS, origins)]
    return NetworkPolicy(mode, _once(options.allowed), tuple(rules))


def _joined_policy(
    own: NetworkPolicy, options: Options, project: Project, settings: Settings, origins: dict[str, str]
) -> NetworkPolicy:
    asked = project.network
    mode = own.mode if options.policy or asked.policy is None else asked.policy
    if not options.policy and asked.policy is not None:
        origins["policy"] = FILE
    _check_hosts(asked.allow)
    origins |= {f"allow.{host}": FILE for host in asked.allow if host not in own.allow}
    first, last = own.rules[: len(options.rules)], own.rules[len(options.rules) :]
    return NetworkPolicy(mode, _once((*own.allow, *asked.allow)), (*first, *_rules(asked.rules, FILE, origins), *last))


def _check_hosts(patterns: tuple[str, ...]) -> None:
    """Raise UsageError for what is no host pattern in the file, before anybody is asked about it."""
    if not patterns:
        return
    from moat.net.hosts import HostPattern

    for pattern in patterns:
        try:
            HostPattern.parse(pattern)
        except UsageError as failure:
            raise UsageError(f"{FILE}: network.allow: {failure.problem}", hint=failure.hint) from None


def _rules(lines: tuple[str, ...], owner: str, origins: dict[str, str]) -> list[NetworkRule]:
    """Return the rules of lines. Raises UsageError, which names the file where it is no option."""
    if not lines:
        return []
    from moat.net.rules import parse_rule, rule_text

    rules = []
    for line in lines:
        try:
            rules.append(parse_rule(line))
        except UsageError as failure:
            if owner != FILE:
                raise
            raise UsageError(f"{FILE}: network.rules: {failure.problem}", hint=failure.hint) from None
        origins.setdefault(f"rule.{rule_text(rules[-1])}", owner)
    return rules


def _excluded(
    options: Options, project: Project, settings: Settings, targets: Collection[str]
) -> dict[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return who wants what hidden of which mount. targets: those of the mounts that are the file's."""
    own = (("--exclude", options.excluded), (FILE, project.workspace.exclude), (SETTINGS, settings.workspace.exclude))
    mounts = {checked_target(each.target): ((FILE, each.exclude),) for each in project.mounts}
    return {WORKSPACE: own} | {target: wanted for target, wanted in mounts.items() if target in targets}


def _hidden(
    wanted: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]], origins: dict[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return target → patterns, each once, and note of each the first who wants it."""
    hidden = {}
    for target, asked in wanted.items():
        for owner, patterns in reversed(asked):
            origins |= {f"exclude.{target}:{pattern}": owner for pattern in patterns}
        if patterns := _once(tuple(pattern for _, several in asked for pattern in several)):
            hidden[target] = patterns
    return hidden


def _dependencies(project: Project) -> tuple[str, ...]:
    if not project.dependencies:
        return ()
    from moat.config.dependencies import checked_dependencies

    return tuple(str(each) for each in checked_dependencies(project.dependencies))


def _host_ports(options: Options, project: Project, origins: dict[str, str]) -> tuple[HostPort, ...]:
    """Join the ports of this machine: a name that an option gives away is taken."""
    if not project.network.host_ports:
        return tuple(dict.fromkeys(options.host_ports))
    from moat.config.host_ports import host_ports_of

    names = {each.name for each in options.host_ports if each.name}
    asked = [each for each in host_ports_of(project.network.host_ports) if each.name not in names]
    origins |= {f"host_port.{each}": FILE for each in asked if each not in options.host_ports}
    return tuple(dict.fromkeys((*options.host_ports, *asked)))


def _services(options: Options, project: Project | None, origins: dict[str, str]) -> tuple[Service, ...]:
    """Join the services: a name that an option gives away is taken. Raises UsageError for what cannot be together."""
    asked = {} if project is None else {each.name: each for each in project.services_asked()}
    if not asked and not options.services:
        return ()
    from moat.config.services import checked_services

    said = {each.name: each for each in options.services}
    origins |= {f"service.{name}": "--service" if name in said else FILE for name in {**asked, **said}}
    try:
        return checked_services({**asked, **said}.values())
    except ValueError as refused:
        raise UsageError(
            f"services: {refused}", hint="call each differently, and give each a port of its own"
        ) from None


def _limits(container: Container) -> Limits:
    ulimits = {str(name): (each.soft, each.hard) for name, each in container.ulimits.items()}
    return Limits(container.memory or 0, container.cpus or 0.0, container.pids or 0, ulimits)


def _image_of(settings: Settings) -> tuple[tuple[str, str], ...]:
    return ((DEFAULT if settings.image == _USUAL.image else SETTINGS, settings.image),)


def _first(origins: dict[str, str], key: str, *asked: tuple[str, str]) -> str:
    owner, value = next((each for each in asked if each[1]), (DEFAULT, ""))
    origins[key] = owner
    return value


def _took(origins: dict[str, str], key: str, value: T) -> T:
    if value:
        origins[key] = FILE
    return value


def _said(origins: dict[str, str], key: str, own: V | None, of_file: V | None) -> V | None:
    """Return what the user says, or else the file. None: nothing."""
    if own is None and of_file is not None:
        origins[key] = FILE
    return of_file if own is None else own


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
