"""What `moat run --dry-run` shows: the whole plan, and of each thing who asked for it. Text only; no value of a secret.

What the user set, by option or in moat.yaml, may be one and is not repeated; neither is what a grant's rules spend.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict

from moat.api.container import Limits, Mount
from moat.api.runs import RunSpec
from moat.api.services import hidden
from moat.config.mounts import WORKSPACE
from moat.net.rules import rule_text
from moat.runs.merge import FILE, secret_of
from moat.runs.prepare import Prepared

_COMMAND_LINE = "command line"
_GIVEN = ("-e", FILE)  # the origins of a user's own variable


def as_text(prepared: Prepared, spec: RunSpec) -> str:
    """Return what would be run, for a person."""
    sandbox = prepared.plan.sandbox
    sealed = ("sealed" if prepared.runtime.door else "no door") if prepared.runtime.sealed else "NOT sealed"
    has_one = sandbox.image and prepared.recipe is None
    image = f", image {sandbox.image}  [{_origin(spec, 'image')}]" if has_one else ""
    lines = [
        f"name       {spec.name or '(a new one)'}  [{_origin(spec, 'name', 'default')}]",
        *(f"before     {hook}  [{_origin(spec, 'pre_run')}]" for hook in spec.pre_run),
        f"command    {shlex.join(spec.command)}  [{_origin(spec, 'command')}]",
        f"runtime    {prepared.runtime.name} ({sealed})  [{_origin(spec, 'runtime')}]{image}",
        *([f"workspace  a copy of {prepared.plan.copied}  [{_origin(spec, 'workspace')}]"] if spec.on_a_copy else []),
        *_worktree(prepared, spec),
        *_build(prepared, spec),
        f"policy     {spec.policy.mode}  [{_origin(spec, 'policy')}]",
        *(f"  + {host}  [{_origin(spec, f'allow.{host}')}]" for host in spec.policy.allow),
        *(f"  {line}  [{_origin(spec, f'rule.{line}')}]" for line in map(rule_text, spec.policy.rules)),
        "grants" if spec.grants else "grants     none",
        *(f"  {grant}  [{_origin(spec, f'grant.{grant}')}]" for grant in spec.grants),
    ]
    for server in spec.mcp:
        sent = f", sent the credential {server.grant}" if server.grant else ""
        lines.append(f"mcp        {server.name} = {server.url}{sent}  [{_origin(spec, f'mcp.{server.name}')}]")
    lines += [
        f"port       {name} = {port}{_published(spec, name)}  [{_origin(spec, f'port.{name}')}]"
        for name, port in spec.ports.items()
    ]
    lines += [f"volume     {name} = {at}  [{_origin(spec, f'volume.{name}')}]" for name, at in spec.volumes.items()]
    lines += [
        f"host port  127.0.0.1:{each.port} = {each}  [{_origin(spec, f'host_port.{each}')}]" for each in spec.host_ports
    ]
    lines += list(_services(prepared, spec))
    lines += _manner(spec)
    if spec.profile:
        lines.append(f"profile    {spec.profile}  [{_origin(spec, 'profile')}]")
    if spec.trace_bodies:
        lines.append(f"trace      with headers and beginnings of bodies  [{_origin(spec, 'trace')}]")
    if hosts := prepared.facts.setup.hosts:
        lines.append(f"spent on   {', '.join(hosts)}")
    lines += [f"  {line}" for line in prepared.facts.setup.rules]
    lines += ["limits" if spec.limits.names() else "limits     none of its own", *_limits(spec)]
    lines += ["inside", *(_mount(prepared, mount) for mount in _shown(prepared)), *_hidden(prepared, spec), "variables"]
    lines += [f"  {name}={value}  [{prepared.plan.origins[name]}]" for name, value in _env(prepared, spec).items()]
    return "\n".join(line.replace("\n", "\\n").replace("\t", "\\t") for line in lines)


def as_json(prepared: Prepared, spec: RunSpec, warnings: list[str]) -> dict[str, object]:
    """Return what would be run, for a program. warnings: what is said about it besides the plan's own."""
    plan, sandbox = prepared.plan, prepared.plan.sandbox
    return {
        "name": spec.name or None,
        "command": list(spec.command),
        "pre_run": list(spec.pre_run),
        "workspace": str(plan.copied or sandbox.mounts[0].source),
        "on_a_copy": spec.on_a_copy,
        "branch": spec.worktree.branch if spec.worktree else None,
        "trace_bodies": spec.trace_bodies,
        "workdir": sandbox.workdir,
        "home": sandbox.home,
        "runtime": prepared.runtime.name,
        "sealed": prepared.runtime.sealed and prepared.runtime.door,
        "image": sandbox.image,
        "build": _build_as_json(prepared),
        "policy": {
            "mode": spec.policy.mode,
            "allow": list(spec.policy.allow),
            "rules": [rule_text(rule) for rule in spec.policy.rules],
        },
        "profile": spec.profile,
        "grants": list(spec.grants),
        "spent_on": list(prepared.facts.setup.hosts),
        "credential_rules": list(prepared.facts.setup.rules),
        "mcp": [asdict(server) for server in spec.mcp],
        "ports": dict(spec.ports),
        "published": dict(spec.published),
        "volumes": dict(spec.volumes),
        "interactive": "auto" if spec.interactive is None else spec.interactive,
        "snapshots": {"before": spec.snapshots.before, "every_s": prepared.plan.snapshot_every_s},
        "host_ports": [{"port": each.port, "inside": str(each)} for each in spec.host_ports],
        "services": _services_as_json(prepared, spec),
        "limits": _limits_as_json(spec.limits),
        "mounts": [
            {
                "source": None if mount.source in plan.files else str(mount.source),
                "target": mount.target,
                "read_only": mount.read_only,
                "from": plan.origins[mount.target],
            }
            for mount in _shown(prepared)
        ],
        "hidden": [{"path": path, "kind": kind, "pattern": text} for path, kind, text in _all_hidden(prepared, spec)],
        "files": {
            mount.target: {"bytes": len(_bytes(plan.files[mount.source])), "from": plan.origins[mount.target]}
            for mount in _shown(prepared)
            if mount.source in plan.files
        },
        "variables": {
            name: {"value": value, "from": plan.origins[name]} for name, value in _env(prepared, spec).items()
        },
        "from": {key: owner for key, owner in sorted(spec.origins.items()) if not key.startswith(("env.", "mount."))},
        "warnings": [*plan.warnings, *warnings],
    }


def _worktree(prepared: Prepared, spec: RunSpec) -> Iterator[str]:
    if spec.worktree is not None:
        folder = prepared.plan.sandbox.mounts[0].source
        yield f"workspace  {folder}, a worktree of {spec.worktree.branch}  [{_origin(spec, 'workspace')}]"


def _published(spec: RunSpec, name: str) -> str:
    return f", at 127.0.0.1:{spec.published[name]}" if name in spec.published else ""


def _manner(spec: RunSpec) -> Iterator[str]:
    if spec.interactive is not None:
        yield f"terminal   {'yes' if spec.interactive else 'none'}  [{_origin(spec, 'interactive')}]"
    if spec.snapshots.before:
        yield f"snapshot   before it  [{_origin(spec, 'snapshots.before')}]"
    if spec.snapshots.every_s:
        what = "none while it works, on a copy" if spec.on_a_copy else f"every {spec.snapshots.every_s} s"
        yield f"snapshot   {what}  [{_origin(spec, 'snapshots.every')}]"


def _build(prepared: Prepared, spec: RunSpec) -> Iterator[str]:
    """Tell how the run's own image is made, line by line."""
    if recipe := prepared.recipe:
        state = "is there" if prepared.is_built else "is to be built first"
        yield f"image      {recipe.tag} {state}, from {recipe.base}  [{_origin(spec, 'image')}]"
        yield from (f"  + {each}  [{_origin(spec, f'dependency.{each}')}]" for each in recipe.dependencies)
        yield from (f"  | {line}" for line in recipe.text.splitlines())


def _build_as_json(prepared: Prepared) -> dict[str, object] | None:
    recipe = prepared.recipe
    if recipe is None:
        return None
    return {
        "base_image": recipe.base,
        "dependencies": list(recipe.dependencies),
        "is_built": prepared.is_built,
        "recipe": recipe.text,
    }


def _services(prepared: Prepared, spec: RunSpec) -> Iterator[str]:
    for each in spec.services:
        state = "is to be fetched first" if each.image in prepared.absent else "is there"
        place = f"{each.image} ({state}), at 127.0.0.1:{each.port}"
        yield f"service    {each.name} = {place}  [{_origin(spec, f'service.{each.name}')}]"


def _services_as_json(prepared: Prepared, spec: RunSpec) -> list[dict[str, object]]:
    sandbox = prepared.plan.sandbox
    return [
        {
            "name": asked.name,
            "kind": asked.kind or None,
            "image": asked.image,
            "is_there": asked.image not in prepared.absent,
            "port": asked.port,
            "ready": [hidden(word, sandbox.services) for word in made.ready] or None,
            "user": asked.user or None,
            "env": sorted(made.env),
        }
        for asked, made in zip(spec.services, sandbox.services, strict=True)
    ]


def _origin(spec: RunSpec, key: str, otherwise: str = _COMMAND_LINE) -> str:
    return spec.origins.get(key, otherwise)


def _mount(prepared: Prepared, mount: Mount) -> str:
    plan = prepared.plan
    held = plan.files.get(mount.source)
    source = f" = {mount.source}" if held is None else f" ({len(_bytes(held))} bytes of ours)"
    return f"  {mount.target}{source}{' (read-only)' if mount.read_only else ''}  [{plan.origins[mount.target]}]"


def _shown(prepared: Prepared) -> list[Mount]:
    return [mount for mount in prepared.plan.sandbox.mounts if mount.target not in prepared.plan.hidden]


def _all_hidden(prepared: Prepared, spec: RunSpec) -> Iterator[tuple[str, str, str]]:
    """Yield path inside, kind and pattern of all that is hidden, or not copied."""
    for mount in prepared.plan.sandbox.mounts:
        if pattern := prepared.plan.hidden.get(mount.target):
            yield mount.target, "file" if mount.read_only else "folder", pattern
    if spec.on_a_copy:
        for each in prepared.facts.hidden.get(WORKSPACE, ()):
            yield f"{WORKSPACE}/{each.path}", each.kind, each.pattern


def _hidden(prepared: Prepared, spec: RunSpec) -> Iterator[str]:
    for target, patterns in spec.hidden.items():
        for pattern in patterns:
            yield f"  {target} without {pattern}  [{_origin(spec, f'exclude.{target}:{pattern}')}]"
    yield from (f"    {path} is hidden, a {kind}" for path, kind, _ in _all_hidden(prepared, spec))


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _env(prepared: Prepared, spec: RunSpec) -> dict[str, str]:
    origins, env = prepared.plan.origins, prepared.plan.sandbox.env
    shown = {}
    for name in sorted(env):
        is_own = origins[name] in _GIVEN or secret_of(spec, name)
        shown[name] = "(fetched at start)" if secret_of(spec, name) else "(as given)" if is_own else env[name]
        if origins[name].startswith("service "):
            shown[name] = prepared.plan.shown[name]
    return shown


def _limits(spec: RunSpec) -> Iterator[str]:
    for name, value in _limits_as_json(spec.limits).items():
        yield f"  {name} {value}  [{_origin(spec, f'limit.{name}')}]"


def _limits_as_json(limits: Limits) -> dict[str, object]:
    values: dict[str, object] = {"memory": limits.memory_bytes, "cpus": limits.cpus, "pids": limits.pids}
    values |= {f"ulimits.{name}": {"soft": soft, "hard": hard} for name, (soft, hard) in limits.ulimits.items()}
    return {name: values[name] for name in limits.names()}
