"""The docker runtime: a run is a container that shares the network of its gate, which is a container too.

This module is imported whenever runtimes are listed; what needs aiodocker is imported when a run needs it.
MOAT_DOCKER_DOOR=none makes it behave as with an engine on another machine (`internal`): for tests, and for engines that
let a door through only by half.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from moat.api.container import Limits
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.runtimes.docker_library import load_library

if TYPE_CHECKING:
    from moat.api.images import Images
    from moat.runtimes.engine import Engine

DOOR_VARIABLE = "MOAT_DOCKER_DOOR"


class Docker(Runtime):
    """Containers on the engine that DOCKER_HOST, the docker context or the usual sockets name. Pulls no image."""

    name: ClassVar[str] = "docker"
    summary: ClassVar[str] = "containers without any network but the door"
    needs_image: ClassVar[bool] = True

    def engine(self) -> type[Engine]:
        """Return the kind of engine that holds the runs."""
        from moat.runtimes.engine import Engine

        return Engine

    def has_door(self) -> bool:
        """Whether to have the door opened first; without it a run gets the fallback at once."""
        return os.environ.get(DOOR_VARIABLE, "") != "none"

    async def readiness(self, image: str) -> Readiness:
        """Say whether the engine answers and has the image."""
        try:
            load_library()
        except ImportError as failure:
            return Readiness(
                False, f"the docker client library cannot be loaded: {failure}", "run: pip install aiodocker"
            )
        from moat.runtimes import docker_ready

        return await docker_ready.readiness(image, self.engine())

    async def unenforced(self, limits: Limits) -> tuple[str, ...]:
        """Ask the engine, if something is limited at all."""
        if not limits.names():
            return ()
        load_library()
        from moat.runtimes import docker_ready

        return await docker_ready.unenforced(limits, self.engine())

    def images(self) -> Images:
        """Return what makes images with the engine."""
        load_library()
        from moat.runtimes.docker_images import DockerImages

        return DockerImages(has_door=self.has_door(), engine=self.engine())

    def holds_services(self) -> bool:
        """Services join a gate's network; where the engine is elsewhere there is none."""
        return self.has_door()

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        """Start the gate, and when its door is open the command's container."""
        load_library()
        from moat.runtimes import docker_launch

        has_door, engine = self.has_door(), self.engine()
        return await docker_launch.launch(spec, ticket, stdio, created, has_door=has_door, engine=engine)

    async def reap(self, run_id: str) -> None:
        """Remove the run's containers and network, of this installation only; no engine means that there are none."""
        from moat.runtimes import docker_engine, docker_ready

        try:
            async with docker_engine.session(self.engine()) as docker:
                await docker_ready.reap(docker, run_id)
        except SandboxFailed:
            if (await docker_ready.readiness("", self.engine())).is_ready:
                raise

    async def pulse(self, run_id: str) -> bool | None:
        """Say whether a container of the run's is running; None when the engine does not answer."""
        from moat.runtimes import docker_engine, docker_ready

        try:
            async with docker_engine.session(self.engine(), docker_engine.READY_TIMEOUT_S) as docker:
                return await docker_ready.is_running(docker, run_id)
        except SandboxFailed:
            return None
