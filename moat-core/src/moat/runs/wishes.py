"""Says what of a moat.yaml reaches beyond the sandbox, one plain sentence each: what nobody gets without a yes.

Pure. A moat.yaml may come from a stranger's repository, or be what an earlier run left behind. Nobody is asked about
what changes only the inside of a sealed run, or takes something away: name, command, variables, mounts of what lies in
the workspace, a stricter policy, less memory. What the user asks for as well, by option, is the user's own wish.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moat.api.runs import RunSpec
from moat.config.excludes import is_hidden, parse_exclude
from moat.config.mounts import WORKSPACE
from moat.config.settings import Settings
from moat.net.rules import parse_rule, rule_text
from moat.runs.merge import FILE, Options
from moat.runs.secrets import Reference
from moat.runtimes.detect import AUTOMATIC
from moat.runtimes.docker_config import AGENT_PIDS

if TYPE_CHECKING:
    from moat.config.project import Project


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a wish is compared with. workspace: the real one. unsealed: the runtimes that isolate nothing."""

    options: Options
    settings: Settings
    workspace: Path
    unsealed: Collection[str]


def wishes(project: Project, spec: RunSpec, references: Sequence[Reference], around: Circumstances) -> tuple[str, ...]:
    """Return what needs a yes. spec: merged, with the real paths of its mounts. The same wishes have the same words."""
    found = (
        *_credentials(spec),
        *_agent(spec),
        *(str(reference) for reference in references),
        *_mounts(spec, around.workspace),
        *_network(project, around),
        *_doors(spec),
        *_place(project, spec, around),
        *_image(spec),
        *_services(spec),
        *_limits(spec),
    )
    return tuple(one_line(wish) for wish in found)


def one_line(text: str) -> str:
    """Return text in visible ASCII: nothing in it moves a cursor, hides, or passes for other words."""
    return "".join(
        character if character == " " or "!" <= character <= "~" else character.encode("unicode_escape").decode()
        for character in text
    )


def _credentials(spec: RunSpec) -> Iterator[str]:
    for name in spec.grants:
        if spec.origins[f"grant.{name}"] == FILE:
            yield f"spend your credential {name}{_of_profile(spec)}"


def _agent(spec: RunSpec) -> Iterator[str]:
    if spec.origins.get("agent") == FILE:
        yield f"start the agent {spec.agent}, and spend your credential that it runs on{_of_profile(spec)}"


def _of_profile(spec: RunSpec) -> str:
    """Another profile's credential is another credential."""
    return f" of the profile {spec.profile}" if spec.profile else ""


def _mounts(spec: RunSpec, workspace: Path) -> Iterator[str]:
    for mount in spec.mounts:
        if spec.origins.get(f"mount.{mount.target}") != FILE:
            continue
        what = f"{'read' if mount.read_only else 'read and change'} {mount.source}, as {mount.target}"
        if not mount.source.is_relative_to(workspace):
            yield what
        elif _is_hidden(spec, mount.source.relative_to(workspace).parts):
            yield f"{what}, which you hide from runs"


def _is_hidden(spec: RunSpec, parts: Sequence[str]) -> bool:
    """Whether the user, not the file itself, hides this of the workspace."""
    own = [
        parse_exclude(text)
        for text in spec.hidden.get(WORKSPACE, ())
        if spec.origins[f"exclude.{WORKSPACE}:{text}"] != FILE
    ]
    return is_hidden(own, parts, is_folder=True)


def _network(project: Project, around: Circumstances) -> Iterator[str]:
    own = around.settings.network
    is_strict = (around.options.policy or own.policy) == "strict"
    if project.network.policy == "permissive" and is_strict and not around.options.policy:
        yield "reach every public host, where you say strict"
    if is_strict:
        for host in project.network.allow:
            if host not in around.options.allowed:
                yield f"reach {host}, where you say strict"
    rules = [parse_rule(line) for line in project.network.rules]
    if is_strict or any(parse_rule(line).verdict == "deny" for line in own.rules):
        for rule in rules:
            if rule.verdict == "allow":
                yield f"let out what your own policy may keep in: {rule_text(rule)}"


def _doors(spec: RunSpec) -> Iterator[str]:
    for server in spec.mcp:
        what = f"send your credential {server.grant}{_of_profile(spec)} to" if server.grant else "reach"
        tools = f" to call {', '.join(server.tools)} there" if server.tools else ""
        yield f"{what} {server.url}, as the MCP server {server.name}{tools}"
    for each in spec.host_ports:
        if spec.origins[f"host_port.{each}"] == FILE:
            yield f"connect to port {each.port} of this machine (127.0.0.1), as {each}"
    for name, port in spec.ports.items():
        at = f"127.0.0.1:{spec.published[name]}" if name in spec.published else "a free port of 127.0.0.1"
        yield f"have its port {port} reached from this machine, as {name}.{spec.name or 'NAME'}.localhost and at {at}"


def _place(project: Project, spec: RunSpec, around: Circumstances) -> Iterator[str]:
    origins, settings = spec.origins, around.settings
    if origins["runtime"] == FILE and spec.runtime not in around.unsealed:
        if settings.runtime and settings.runtime != spec.runtime:
            yield f"use the runtime {spec.runtime}, where you say {settings.runtime}"
        elif not settings.runtime and spec.runtime not in AUTOMATIC:
            yield f"use the runtime {spec.runtime}"
    if origins["image"] == FILE and spec.image != settings.image:
        yield f"start the image {spec.image}, where you say {settings.image}; the run can read all that is in it"
    if spec.runtime in around.unsealed:
        yield from _without_a_sandbox(spec)


def _image(spec: RunSpec) -> Iterator[str]:
    """A build is sealed, but its root has more power than a run has, and its image stays on this machine."""
    if spec.dependencies:
        what = ", ".join(spec.dependencies)
        yield f"have an image built with {what}: their code runs as a sealed container's root, and the image stays"
    if spec.post_build:
        yield f"run, as root of the sealed container that its image is built in: {spec.post_build}"


def _services(spec: RunSpec) -> Iterator[str]:
    """An engine fetches and starts what somebody else chose; what runs then is as near to the proxy as the command."""
    for each in spec.services:
        if spec.origins[f"service.{each.name}"] == FILE:
            what = f"have the engine run {each.image}, fetched if it is not there, as the service {each.name}"
            yield f"{what}: it reaches what the run reaches, and can spend what the run spends"


def _without_a_sandbox(spec: RunSpec) -> Iterator[str]:
    """Where nothing is isolated, everything that the command is made of happens on this machine."""
    origins = spec.origins
    if origins["runtime"] == FILE:
        yield f"run without any sandbox (runtime {spec.runtime}): the command can do whatever you can"
    for hook in spec.pre_run:
        yield f"run, outside of any sandbox, before the command: {hook}"
    if origins.get("command") == FILE:
        yield f"run, outside of any sandbox: {shlex.join(spec.command)}"
    for name, value in spec.env.items():
        if origins.get(f"env.{name}") == FILE:
            yield f"set a variable of a command outside of any sandbox: {name}={value}"


def _limits(spec: RunSpec) -> Iterator[str]:
    """More than usual is a matter of the machine; less is the run's own."""
    if spec.limits.pids > AGENT_PIDS:
        yield f"have {spec.limits.pids} processes at once, instead of {AGENT_PIDS}"
    for name, (soft, hard) in spec.limits.ulimits.items():
        yield f"set the limit {name} of its processes to {soft} (at most {hard})"
