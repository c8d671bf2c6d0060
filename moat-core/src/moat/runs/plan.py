"""Decides what a run will be: what was asked plus what is known becomes one sandbox and one registration.

Pure: no file is looked at and nothing is made. Every path that matters was looked at before, by `collect`.

    RunSpec ─┐
             ├─▶ plan ─▶ RunPlan: sandbox · registration · files of ours · where each thing came from · warnings
    Facts  ──┘
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Literal

from moat.api.container import ContainerSetup, Mount, merge
from moat.api.errors import PlanConflict, UsageError
from moat.api.light import dataclass
from moat.api.runs import RunSpec, Worktree
from moat.api.runtimes import SandboxSpec
from moat.api.services import Sidecar
from moat.config.mounts import WORKSPACE, checked_target
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RegisterRequest, SetupResponse
from moat.paths import Home
from moat.redaction import SecretMarks
from moat.runs.begin import begin, begun
from moat.runs.hooks import after_hooks
from moat.runs.masks import Hidden, Masks, masks
from moat.runs.merge import FILE, rule_lines, secret_of
from moat.runs.outcomes import OBJECTS_INSIDE, REPOSITORY, repository_path
from moat.runs.trust import (
    BUNDLE,
    JAVA,
    RESERVED,
    TRUST_STORE,
    java_options,
    proxy_variables,
    trust_files,
    trust_variables,
)
from moat.runs.truststore import trust_store

INSIDE_HOME = "/home/moat"
INSIDE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("TERM", "COLORTERM", "LANG", "TZ", "NO_COLOR")  # how output looks; nothing that says who the user is

_OURS = "moat"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a path of the host. resolved: with every link followed."""

    resolved: Path
    kind: Literal["folder", "file", "socket", "other", "absent"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What collect found out. paths: the workspace and every mount's source. passed: host variables of PASSED_ON.

    roots: the host's certificate bundle, PEM. terminal: rows and columns when the run gets a terminal of its own.
    hidden: target of a mount → what is not shown of it. passwords: of services, by their names.
    """

    run_id: str
    name: str
    home: Home
    runtime: str
    setup: SetupResponse
    paths: Mapping[Path, Found]
    is_sealed: bool = True
    has_door: bool = True
    needs_image: bool = False
    roots: str = field(default="", repr=False)
    passed: Mapping[str, str] = field(default_factory=dict)
    terminal: tuple[int, int] | None = None
    hidden: Mapping[str, tuple[Hidden, ...]] = field(default_factory=dict)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the command. env: of the command. owners: variable → the service that it is of.

    shown: the variables as anybody may see them, without a password.
    """

    sidecars: tuple[Sidecar, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    owners: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run decided. files: host path → contents, to be written. origins: variable or path inside → who wants it.

    copied: the workspace, where the run works on a copy of it, which is the sandbox's first mount. worktree: what
    the workspace is, where the run gets a repository of its own. left_out: what is not copied. folders: empty ones,
    to be made. hidden: path inside that something empty lies over → which pattern is why. volumes: name → path
    inside of those that must be there. snapshot_every_s: of the workspace; 0 for never. shown: the variables that
    hold a password of a service, as anybody may see them. known: marks of what is to be left out of what is kept.
    """

    sandbox: SandboxSpec
    registration: RegisterRequest
    files: Mapping[Path, str | bytes] = field(repr=False)
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    copied: Path | None = None
    worktree: Worktree | None = None
    left_out: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    snapshot_every_s: int = 0
    shown: Mapping[str, str] = field(default_factory=dict)
    known: SecretMarks = field(default_factory=SecretMarks, repr=False)


def plan(spec: RunSpec, facts: Facts) -> RunPlan:
    """Return the plan for spec.

    Raises UsageError for what cannot be mounted or set, PlanConflict when two contributors want different things.
    """
    if not spec.command or not spec.command[0]:
        raise UsageError("there is no command to run", hint="run: moat run -- COMMAND")
    _check_paths(spec, facts)
    if spec.ports and not (facts.is_sealed and facts.has_door):
        problem = f"no port of a run in the runtime {facts.runtime} can be reached by name"
        raise UsageError(problem, hint="use --runtime docker, or take out ports in moat.yaml")
    _check_hiding(spec, facts)
    if spec.host_ports and not facts.is_sealed:
        problem = f"the runtime {facts.runtime} keeps no port of this machine from a run, and opens none"
        raise UsageError(problem, hint="use --runtime docker or bubblewrap, or take out --host-port and host_ports")
    own_env, dropped = _own_variables(spec)
    contributions = _contributions(spec, facts, own_env)
    merged = merge(contributions)
    _check_cover(merged)
    files, mounts = _place({**merged.files, TRUST_STORE: trust_store(merged.files[BUNDLE])}, facts)
    defaults, beside = _defaults(facts), _beside(spec, facts)
    shown = (Mount(_shown(spec, facts), WORKSPACE), *mounts, *merged.mounts)
    hiding = _masks(spec, facts, shown)
    sandbox = SandboxSpec(
        run_id=facts.run_id,
        name=facts.name,
        argv=begun(spec, after_hooks(spec.pre_run, spec.command)),
        env={**defaults, **beside.env, **merged.env},
        mounts=(*shown, *hiding.mounts),
        workdir=WORKSPACE,
        home=INSIDE_HOME,
        image=spec.image if facts.needs_image else "",
        terminal=facts.terminal,
        allow_sockets=spec.allow_sockets,
        limits=spec.limits,
        services=beside.sidecars,
    )
    origins = {WORKSPACE: "workspace", TRUST_STORE: _OURS} | dict.fromkeys(defaults, "default")
    origins |= {name: f"service {owner}" for name, owner in beside.owners.items()}
    origins |= _origins(contributions)
    copied = facts.paths[spec.workspace].resolved if spec.on_a_copy else None
    return RunPlan(
        sandbox,
        _registration(spec, facts),
        {**files, **dict.fromkeys(hiding.files, "")},
        origins,
        dropped,
        copied,
        spec.worktree,
        tuple(each.path for each in facts.hidden.get(WORKSPACE, ())) if spec.on_a_copy else (),
        hiding.folders,
        hiding.patterns,
        spec.volumes,
        0 if spec.on_a_copy else spec.snapshots.every_s,  # what a copy is of does not change
        beside.shown,
        facts.setup.known,
    )


def _masks(spec: RunSpec, facts: Facts, shown: tuple[Mount, ...]) -> Masks:
    """Return what hides what is not to be seen. Nothing of the workspace where it is a copy, which does not have it."""
    if not facts.hidden:
        return Masks()
    hidden = {target: of_it for target, of_it in facts.hidden.items() if target != WORKSPACE or not spec.on_a_copy}
    return masks(hidden, shown, facts.home.inside(facts.run_id))


def _beside(spec: RunSpec, facts: Facts) -> Beside:
    """Return the services and what the command is told of them; what a user or a grant sets stands before it."""
    if not spec.services:
        return Beside()
    from moat.runs.services import arranged

    return arranged(spec.services, facts.passwords, spec.host_ports)


def _shown(spec: RunSpec, facts: Facts) -> Path:
    """Return the folder that the run works on."""
    return facts.home.copies / facts.run_id if spec.on_a_copy else facts.paths[spec.workspace].resolved


def _contributions(spec: RunSpec, facts: Facts, own_env: Mapping[str, str]) -> list[tuple[str, ContainerSetup]]:
    setup = facts.setup
    granted = tuple(Mount(Path(source), checked_target(target), ro) for source, target, ro in setup.mounts)
    trust = trust_files(facts.roots, setup.ca_certificate)
    for path in setup.files:
        checked_target(path)
    own = _by_owner(spec, own_env)
    java = _java_options(*own, (_granting(spec.grants), setup.env))
    return [
        java,
        (_OURS, ContainerSetup({**trust_variables(), **proxy_variables()}, trust)),
        (_granting(spec.grants), ContainerSetup(_without_java(setup.env), setup.files, granted)),
        *((owner, ContainerSetup(_without_java(env))) for owner, env in own),
        *_own_repository(spec, facts),
        *begin(spec, INSIDE_HOME),
        *(_mounted(mount, spec, facts) for mount in spec.mounts),
        *_volumes(spec, facts),
    ]


def _own_repository(spec: RunSpec, facts: Facts) -> Iterator[tuple[str, ContainerSetup]]:
    """Yield what makes git work in a worktree: a repository of the run's own, and the objects of the user's to read.

    The worktree's `.git`, which leads to the user's repository on this machine, is covered, so that it stays.
    """
    if spec.worktree is None:
        return
    if not facts.is_sealed:
        raise UsageError(f"{facts.runtime} cannot keep a run from the repository", hint="leave --worktree away")
    if spec.on_a_copy:
        raise UsageError("a worktree is a copy already", hint="leave --copy away, or workspace.mode in moat.yaml")
    own = Mount(repository_path(facts.home, facts.run_id), REPOSITORY)
    objects = Mount(spec.worktree.repository / "objects", OBJECTS_INSIDE, read_only=True)
    files = {f"{WORKSPACE}/.git": f"gitdir: {REPOSITORY}\n"}
    yield f"worktree {spec.worktree.branch}", ContainerSetup(files=files, mounts=(own, objects))


def _java_options(*owned: tuple[str, Mapping[str, str]]) -> tuple[str, ContainerSetup]:
    """Return what JVMs are told, in the name of the first who says something. Ours stands last, where it wins."""
    given = [(owner, env[JAVA]) for owner, env in owned if env.get(JAVA)]
    words = " ".join([*(value for _, value in reversed(given)), java_options()])
    return given[0][0] if given else _OURS, ContainerSetup({JAVA: words})


def _without_java(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name != JAVA}


def _granting(grants: tuple[str, ...]) -> str:
    if not grants:
        return "a plugin"
    return f"{'grant' if len(grants) == 1 else 'grants'} {', '.join(grants)}"


def _mounted(mount: Mount, spec: RunSpec, facts: Facts) -> tuple[str, ContainerSetup]:
    """Return who wants a mount, and what it is. One of moat.yaml's was looked at when the user was asked about it."""
    resolved = facts.paths[mount.source].resolved
    owner = spec.origins.get(f"mount.{mount.target}", f"--mount {mount.source}")
    if owner == FILE and resolved != mount.source:
        raise UsageError(f"{mount.source} has become a link to {resolved} meanwhile", hint="run it again")
    return owner, ContainerSetup(mounts=(Mount(resolved, mount.target, mount.read_only),))


def _volumes(spec: RunSpec, facts: Facts) -> Iterator[tuple[str, ContainerSetup]]:
    """Yield who wants a volume, and its mount: one of the workspace's own, whoever else has one of that name."""
    for name, target in spec.volumes.items():
        source = facts.home.volumes_of(facts.paths[spec.workspace].resolved) / name
        yield spec.origins.get(f"volume.{name}", "--volume"), ContainerSetup(mounts=(Mount(source, target),))


def _by_owner(spec: RunSpec, env: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the user's variables by who set them: -e, a file, or a secret of its own."""
    owners = {name: spec.origins.get(f"env.{name}", "-e") for name in env}
    return [
        (owner, {name: env[name] for name in env if owners[name] == owner}) for owner in dict.fromkeys(owners.values())
    ]


def _own_variables(spec: RunSpec) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the user's variables without those that would lead past the proxy, and a warning for each of these."""
    for name, value in spec.env.items():
        if _VARIABLE.fullmatch(name) is None or "\0" in value:
            raise UsageError(f"{name!r} cannot be a variable", hint="write -e NAME=value")
    dropped = tuple(
        f"{spec.origins.get(f'env.{name}', '-e')} {name} is dropped: moat sets it, so that the run finds its proxy"
        for name in spec.env
        if name in RESERVED
    )
    return {name: value for name, value in spec.env.items() if name not in RESERVED}, dropped


def _defaults(facts: Facts) -> dict[str, str]:
    """Return what is set unless a contributor sets it. An image brings its own PATH."""
    chosen = {"HOME": INSIDE_HOME, "USER": "moat", "LOGNAME": "moat", "LANG": "C.UTF-8", "MOAT_RUN": facts.name}
    if not facts.needs_image:
        chosen["PATH"] = INSIDE_PATH
    return chosen | {name: facts.passed[name] for name in PASSED_ON if facts.passed.get(name)}


def _place(files: Mapping[str, str | bytes], facts: Facts) -> tuple[dict[Path, str | bytes], tuple[Mount, ...]]:
    """Return where on the host each file is written, and the mounts that show it; equal ones are written once."""
    folder = facts.home.inside(facts.run_id)
    sources: dict[str | bytes, Path] = {}
    for target, text in files.items():
        sources.setdefault(text, folder / target.lstrip("/"))
    mounts = tuple(Mount(sources[text], target, read_only=True) for target, text in files.items())
    return {path: text for text, path in sources.items()}, mounts


def _registration(spec: RunSpec, facts: Facts) -> RegisterRequest:
    return RegisterRequest(
        run_id=facts.run_id,
        name=facts.name,
        grants=spec.grants,
        network_policy=spec.policy.mode,
        network_allow=spec.policy.allow,
        network_rules=rule_lines(spec.policy),
        runtime=facts.runtime,
        workspace=str(facts.paths[spec.workspace].resolved),
        command=spec.command,
        needs_door=facts.is_sealed,
        profile=spec.profile,
        secrets=tuple(name for name in spec.env if secret_of(spec, name)),
        mcp_servers=spec.mcp,
        trace_bodies=spec.trace_bodies,
        endpoints=tuple(RoutedPort(name, port, spec.published.get(name, 0)) for name, port in spec.ports.items()),
        host_ports=spec.host_ports,
    )


def _origins(contributions: Iterable[tuple[str, ContainerSetup]]) -> dict[str, str]:
    origins: dict[str, str] = {}
    for owner, setup in contributions:
        targets = (*setup.env, *setup.files, *(mount.target for mount in setup.mounts))
        origins |= {target: owner for target in targets if target not in origins}
    return origins


def _check_paths(spec: RunSpec, facts: Facts) -> None:
    workspace = facts.paths[spec.workspace]
    if workspace.kind != "folder":
        what = "does not exist" if workspace.kind == "absent" else "is no folder"
        raise UsageError(f"the workspace {spec.workspace} {what}", hint="run: moat run FOLDER -- COMMAND")
    _check_apart("workspace", workspace.resolved, facts.home)
    for mount in spec.mounts:
        found = facts.paths[mount.source]
        if found.kind == "absent":
            raise UsageError(f"{mount.source} cannot be mounted: it does not exist")
        if found.kind == "other" or (found.kind == "socket" and not spec.allow_sockets):
            problem = f"{mount.source} cannot be mounted: it is neither a file nor a folder, and could be a way out"
            raise UsageError(problem, hint="if that is what you want: --allow-socket")
        _check_apart("mount", found.resolved, facts.home)


def _check_hiding(spec: RunSpec, facts: Facts) -> None:
    """Refuse to promise that something is shown or not seen where all of this machine is."""
    if not facts.is_sealed and spec.volumes:
        problem = f"the runtime {facts.runtime} has no volumes"
        raise UsageError(problem, hint="use --runtime docker or bubblewrap, or take out volumes")
    if not facts.is_sealed and spec.hidden.keys() - ({WORKSPACE} if spec.on_a_copy else set()):
        problem = f"the runtime {facts.runtime} hides nothing of the workspace or a mount from a run"
        raise UsageError(problem, hint="use --runtime docker or bubblewrap, or take out exclude")


def _check_apart(what: str, path: Path, home: Home) -> None:
    """Refuse to show moat's own folder, which holds the store and the sockets, anything around or in it, or volumes."""
    if any(path == own or own in path.parents for own in (home.root, home.volumes)):
        raise UsageError(f"the {what} {path} is moat's own folder", hint="choose another folder")
    if path in home.root.parents:
        hint = "choose a folder that does not, or set MOAT_HOME"
        raise UsageError(f"the {what} {path} holds moat's own folder {home.root}", hint=hint)


def _check_cover(merged: ContainerSetup) -> None:
    """Refuse mounts that would hide a file of ours, since they are laid over it later."""
    for mount in merged.mounts:
        for target in merged.files:
            if PurePosixPath(target).is_relative_to(mount.target):
                raise PlanConflict(f"the mount at {mount.target} would hide {target}", hint="mount it somewhere else")
