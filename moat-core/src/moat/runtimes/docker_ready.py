"""Questions to the engine that make nothing: is it there, does it have the image, what did a run leave behind."""

from __future__ import annotations

import aiodocker

from moat.api.container import Limits
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Readiness
from moat.paths import find_home
from moat.runtimes.docker_config import HOME_LABEL, RUN_LABEL, labels
from moat.runtimes.docker_engine import NOT_FOUND, READY_TIMEOUT_S, remove, remove_network, session, told_as

INSTALL_HINT = "install and start docker (apt-get install docker.io), or use --runtime bubblewrap"
ACCESS_HINT = "run: sudo usermod -aG docker $USER, then log in again"


async def readiness(image: str) -> Readiness:
    """Say whether the engine answers, and has image unless that is empty."""
    try:
        async with session(READY_TIMEOUT_S) as docker:
            with told_as("answer"):
                version = await docker.version()
            if image and not await has_image(docker, image):
                return Readiness(False, f"docker has no image {image}", f"run: docker pull {image}")
            return Readiness(True, f"docker {version.get('Version', '')}".rstrip())
    except SandboxFailed as failure:
        is_closed = "ermission denied" in failure.problem
        return Readiness(False, failure.problem, ACCESS_HINT if is_closed else INSTALL_HINT)


async def has_image(docker: aiodocker.Docker, image: str) -> bool:
    """Whether the engine has image. Raises SandboxFailed when it does not say."""
    with told_as(f"look for the image {image}"):
        try:
            await docker.images.inspect(image)
        except aiodocker.DockerError as failure:
            if failure.status == NOT_FOUND:
                return False
            raise
    return True


# What GET /info calls it: an engine whose kernel or whose user's cgroup cannot hold one drops it with a mere warning.
_HELD_BY = {"memory": "MemoryLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}


async def unenforced(limits: Limits) -> tuple[str, ...]:
    """Return the limits that this engine says it would drop. Raises SandboxFailed when it says nothing."""
    async with session(READY_TIMEOUT_S) as docker:
        with told_as("describe itself"):
            info = await docker.system.info()
    return tuple(name for name in limits.names() if name in _HELD_BY and not info.get(_HELD_BY[name], False))


async def reap(docker: aiodocker.Docker, run_id: str) -> None:
    """Remove every container and network with the run's marks. Raises SandboxFailed when one cannot be removed."""
    wanted = _marks(run_id)
    with told_as("list what a run left"):
        containers = await docker.containers.list(all=1, filters=_as_filter(wanted))
        networks = await docker.networks.list(filters={"label": wanted})
    for container in containers:
        await remove(docker, container.id)
    for network in networks:
        await remove_network(docker, str(network["Id"]))


async def is_running(docker: aiodocker.Docker, run_id: str) -> bool:
    """Whether a container with the run's marks runs. Raises SandboxFailed when the engine does not say."""
    with told_as("list a run's containers"):
        return bool(await docker.containers.list(filters=_as_filter(_marks(run_id))))


def _marks(run_id: str) -> list[str]:
    marks = labels(run_id, find_home().root)
    return [f"{label}={marks[label]}" for label in (RUN_LABEL, HOME_LABEL)]


def _as_filter(wanted: list[str]) -> str:
    import json

    return json.dumps({"label": wanted})
