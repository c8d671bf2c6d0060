"""Makes the run of an agent: what the user asked for, and what the agent needs for it, become one RunSpec. Pure.

What the user says comes first: a variable, a mount or a version of a language that both want is the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moat.api.agents import AgentProvider, AgentRequest, Beside, Surroundings
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.runs import McpServer, RunSpec
from moat.config.dependencies import LANGUAGES, checked_dependencies

PROXY = "http://127.0.0.1:19080"


def with_agent(
    spec: RunSpec, agent: AgentProvider, request: AgentRequest, around: Surroundings, mounts: Sequence[Mount]
) -> RunSpec:
    """Return the run in which agent does what is requested. mounts: its program, and what it keeps."""
    owner = f"agent {agent.name}"
    setup = agent.setup(request, around)
    env = {name: value for name, value in setup.env.items() if name not in spec.env}
    taken = {mount.target for mount in spec.mounts}
    own = [mount for mount in mounts if mount.target not in taken]
    hosts = [host for host in agent.hosts if host not in spec.policy.allow]
    origins = {f"env.{name}": owner for name in env} | {f"mount.{mount.target}": owner for mount in own}
    origins |= {f"allow.{host}": owner for host in hosts} | {"command": owner}
    return replace(
        spec,
        agent=agent.name,
        command=tuple(agent.command(request, around)),
        env={**env, **spec.env},
        mounts=(*spec.mounts, *own),
        policy=replace(spec.policy, allow=(*spec.policy.allow, *hosts)),
        files=setup.files,
        origins={**spec.origins, **origins},
    )


def with_image(spec: RunSpec, agent: AgentProvider) -> RunSpec:
    """Return spec with what the agent needs in its image. A language that the user chose a version of stays that."""
    chosen = {each.kind for each in checked_dependencies(spec.dependencies) if each.kind in LANGUAGES}
    try:
        own = [str(each) for each in checked_dependencies(agent.dependencies) if each.kind not in chosen]
        asked = checked_dependencies((*spec.dependencies, *own))
    except ValueError as failure:
        raise UsageError(f"the image of {agent.name}: {failure}", hint="take it out of dependencies") from None
    added = {f"dependency.{each}": f"agent {agent.name}" for each in own if each not in spec.dependencies}
    steps = [text for text in (agent.post_build, spec.post_build) if text]
    return replace(
        spec,
        dependencies=tuple(map(str, asked)),
        post_build="\n".join(steps),
        origins={**spec.origins, **added},
    )


def relayed(servers: Sequence[McpServer]) -> dict[str, str]:
    """Return where the run finds its MCP servers: name → URL inside."""
    return {server.name: f"{PROXY}/mcp/{server.name}" for server in servers}


def beside(spec: RunSpec) -> Beside:
    """Return what the run has beside its workspace and the proxy, as its agent is told."""
    return Beside(
        branch=spec.worktree.branch if spec.worktree else "",
        shared=tuple(mount.target for mount in spec.mounts if not mount.read_only),
        shown=tuple(mount.target for mount in spec.mounts if mount.read_only),
        lasting=tuple(spec.volumes.values()),
        hides="/workspace" in spec.hidden,
        services={service.name: service.port for service in spec.services},
        host_ports=tuple(f"{each.host}:{each.port}" for each in spec.host_ports),
        ports=spec.ports,
    )
