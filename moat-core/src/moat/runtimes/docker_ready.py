"""Questions to the engine that make nothing: is it there, does it have the image, what did a run leave behind."""

from __future__ import annotations

import os

import aiodocker

from moat.api.container import Limits
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Readiness
from moat.paths import find_home
from moat.runtimes.docker_config import HOME_LABEL, RUN_LABEL, gate_name, labels, user_inside
from moat.runtimes.docker_engine import READY_TIMEOUT_S, remove, remove_network, session, told_as
from moat.runtimes.engine import Engine

BAD_REQUEST = 400


async def readiness(image: str, engine: type[Engine] = Engine) -> Readiness:
    """Say whether the engine answers, and has image unless that is empty."""
    try:
        async with session(engine, READY_TIMEOUT_S) as docker:
            with told_as(docker, "answer"):
                version = await docker.greeting()
                objection = await docker.objection(version)
            if objection is not None:
                return objection
            if image and (refused := await _without(docker, image)):
                return refused
            return Readiness(True, f"{docker.title} {version.get('Version', '')}".rstrip() + docker.note)
    except SandboxFailed as failure:
        return Readiness(False, failure.problem, engine.way_in(failure))


async def _without(docker: Engine, image: str) -> Readiness | None:
    """Return why image cannot be had here, None where it is there."""
    try:
        if await has_image(docker, image):
            return None
    except SandboxFailed as failure:
        if isinstance(failure.__cause__, aiodocker.DockerError) and failure.__cause__.status == BAD_REQUEST:
            return Readiness(False, f"{image} is no name of an image", "write it as in debian:bookworm-slim")
        raise
    return Readiness(False, f"{docker.title} has no image {image}", docker.how_to_pull(image))


async def has_image(docker: Engine, image: str) -> bool:
    """Whether the engine has image. Raises SandboxFailed when it does not say."""
    with told_as(docker, f"look for the image {image}"):
        return bool(await docker.facts_of(image))


async def user_of(docker: Engine) -> str:
    """Return who owns the processes inside, so that files in the workspace belong to the invoker."""
    with told_as(docker, "describe itself"):
        return user_inside(await docker.options(), os.geteuid(), os.getegid())


# What GET /info calls it: an engine whose kernel or whose user's cgroup cannot hold one drops it with a mere warning.
_HELD_BY = {"memory": "MemoryLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}


async def unenforced(limits: Limits, engine: type[Engine] = Engine) -> tuple[str, ...]:
    """Return the limits that this engine says it would drop. Raises SandboxFailed when it says nothing."""
    async with session(engine, READY_TIMEOUT_S) as docker:
        with told_as(docker, "describe itself"):
            info = await docker.system.info()
    return tuple(name for name in limits.names() if name in _HELD_BY and not info.get(_HELD_BY[name], False))


async def reap(docker: Engine, run_id: str) -> None:
    """Remove every container and network with the run's marks. Raises SandboxFailed when one cannot be removed."""
    wanted = _marks(run_id)
    with told_as(docker, "list what a run left"):
        containers = await docker.containers.list(all=1, filters=_as_filter(wanted))
        networks = await docker.networks.list(filters={"label": wanted})
    for container in sorted(containers, key=lambda each: f"/{gate_name(run_id)}" in each["Names"]):
        await remove(docker, container.id)  # the gate last: an engine may keep one that others have joined
    for network in networks:
        await remove_network(docker, str(network["Id"]))


async def is_running(docker: Engine, run_id: str) -> bool:
    """Whether a container with the run's marks runs. Raises SandboxFailed when the engine does not say."""
    with told_as(docker, "list a run's containers"):
        return bool(await docker.containers.list(filters=_as_filter(_marks(run_id))))


def _marks(run_id: str) -> list[str]:
    marks = labels(run_id, find_home().root)
    return [f"{label}={marks[label]}" for label in (RUN_LABEL, HOME_LABEL)]


def _as_filter(wanted: list[str]) -> str:
    import json

    return json.dumps({"label": wanted})
