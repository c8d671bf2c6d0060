"""A run's services as containers: started beside its gate, waited for, and removed with the run.

gate's door is open ─▶ each: created, joined to the gate's network ─▶ started ─▶ asked until it is ready
                                                                     └ ended, or too slow ─▶ its last words
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

import aiodocker
import aiohttp

from moat.api.container import Limits
from moat.api.errors import RuntimeUnavailable, SandboxFailed
from moat.api.runtimes import DoorTicket
from moat.api.services import Sidecar, hidden
from moat.runtimes.docker_config import service_container, service_name
from moat.runtimes.docker_engine import create, remove, told_as, uninterrupted
from moat.runtimes.docker_ready import has_image
from moat.runtimes.docker_service_log import ServiceLog
from moat.runtimes.engine import Engine
from moat.runtimes.seccomp import engine_profile

READY_S = 120.0  # a database that makes its files on a slow disk takes a minute
PATIENCE_S = 10.0  # until it is told that, and for what, the run waits
ASK_S = 10.0  # one look whether it is ready
FIRST_PAUSE_S, SLOWEST_PAUSE_S = 0.1, 1.0
LAST_LINES = 10
_SOCKETS = ("cat", "/proc/net/tcp", "/proc/net/tcp6")  # proc(5): its own network's, whoever looks
_LISTENING = "0A"
_NO_COMMAND, _TRIES = (126, 127), 3
_ENGINE = (
    aiodocker.DockerError,
    aiohttp.ClientError,
    OSError,
)  # what its client raises; TimeoutError is one of the last


class Services:
    """The services of one run. undo: where each step leaves how it is undone."""

    def __init__(
        self,
        docker: Engine,
        services: tuple[Sidecar, ...],
        limits: Limits,
        marks: dict[str, str],
        undo: contextlib.AsyncExitStack,
    ) -> None:
        self._docker = docker
        self._services = services
        self._limits = limits
        self._marks = marks
        self._undo = undo
        self.logs: list[ServiceLog] = []  # of those that were started: carry them while the run lasts

    async def check(self, ticket: DoorTicket) -> None:
        """Raise RuntimeUnavailable for an image that is not there, SandboxFailed for a port that the gate takes."""
        taken = {port: name for name, kind, _, port in ticket.places if kind == "tcp"}
        for each in self._services:
            if each.port in taken:
                problem = f"the service {each.name} wants port {each.port}, where an endpoint of this run is"
                raise SandboxFailed(problem, hint="give the service another port")
            if not await has_image(self._docker, each.image):
                hint = self._docker.how_to_pull(each.image)
                raise RuntimeUnavailable(f"{self._docker.title} has no image {each.image}", hint=hint)

    async def start(self, ticket: DoorTicket, network: str) -> None:
        """Start all, and return when all are ready. network: of the gate, whose door is open.

        Raises SandboxFailed with what the first one that failed said last.
        """
        if not self._services:
            return
        started = [_Started(self._docker, each, ticket.told) for each in self._services]
        try:
            async with asyncio.TaskGroup() as group:
                for each in started:
                    group.create_task(self._start(each, ticket, network))
        except BaseExceptionGroup as failures:
            lost, _ = failures.split(SandboxFailed)
            if lost is None or not isinstance(failure := lost.exceptions[0], SandboxFailed):
                raise
            raise failure from None
        self._undo.push_async_callback(self._tell_ended, started, ticket.told)

    async def _tell_ended(self, started: list[_Started], told: Callable[[str], None]) -> None:
        """Tell which services ended before the run did: what the command met then looks like a fault of its own."""
        for each in started:
            if code := await each.ended():
                told(
                    f"the service {each.service.name} ended before the run did (exit {code}): {await each.last_words()}"
                )

    async def _start(self, started: _Started, ticket: DoorTicket, network: str) -> None:
        name = service_name(ticket.run_id, started.service.name)
        config = service_container(
            started.service, self._limits, network=network, seccomp=engine_profile(), marks=self._marks
        )
        self._undo.push_async_callback(self._remove, name)
        container_id = await create(self._docker, name, config)
        log = ServiceLog(self._docker, container_id, partial(ticket.printed, started.service.name))
        self._undo.push_async_callback(log.finish)
        self.logs.append(log)
        await started.start(container_id)
        await started.until_ready()

    async def _remove(self, name: str) -> None:
        await uninterrupted(remove(self._docker, name))


class _Started:
    """One service's container, until it is ready."""

    def __init__(self, docker: Engine, service: Sidecar, told: Callable[[str], None]) -> None:
        self.service = service
        self._docker = docker
        self._told = told
        self._container = docker.containers.container("")
        self._began = time.monotonic()
        self._unanswered = 0

    async def start(self, container_id: str) -> None:
        self._container = self._docker.containers.container(container_id)
        with told_as(self._docker, f"start the service {self.service.name}"):
            await self._container.start()

    async def until_ready(self) -> None:
        """Ask until it is ready. Raises SandboxFailed when it has ended, or takes too long."""
        name, telling = self.service.name, self._began + PATIENCE_S
        try:
            async with asyncio.timeout(READY_S):
                pause = FIRST_PAUSE_S
                while not await self._is_ready():
                    await self._check_running()
                    if time.monotonic() > telling:
                        telling += PATIENCE_S
                        self._told(f"still waiting for {name}: {await self.last_words()}")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, SLOWEST_PAUSE_S)
        except TimeoutError:
            raise await self._failure(f"the service {name} was not ready after {READY_S:.0f} s") from None
        self._told(f"{name} is ready · {self.service.image} · {time.monotonic() - self._began:.1f} s")

    async def ended(self) -> str:
        """Return the exit code of one that is over; "" while it runs, and where the engine does not say."""
        with contextlib.suppress(*_ENGINE):
            state = (await self._container.show())["State"]
            return "" if state.get("Running") else str(state.get("ExitCode"))
        return ""

    async def last_words(self) -> str:
        """Return the last line that it said."""
        return (await self._last_lines() or ["it says nothing"])[-1]

    async def _is_ready(self) -> bool:
        """Ask once. Raises SandboxFailed where the image has nothing to ask with."""
        wanted = self.service.ready or _SOCKETS
        code, said = await self._asked(wanted)
        self._unanswered = self._unanswered + 1 if code in _NO_COMMAND else 0
        if self._unanswered == _TRIES:  # of one that has just ended, the engine says so too
            problem = f"whether the service {self.service.name} is ready cannot be seen: {wanted[0]} does not run in it"
            raise SandboxFailed(problem, hint="set ready: a command of its image that ends with 0 when it can be used")
        return code == 0 if self.service.ready else is_listening(said, self.service.port)

    async def _asked(self, argv: tuple[str, ...]) -> tuple[int, str]:
        """Run a command in the container; return its exit code and output. 255 where there is none, in time."""
        said = bytearray()
        try:
            async with asyncio.timeout(ASK_S):
                made = await self._container.exec(argv)
                async with made.start() as stream:
                    while (piece := await stream.read_out()) is not None:
                        said += piece.data[: 65_536 - len(said)]
                code = (await made.inspect()).get("ExitCode")
        except _ENGINE:  # it takes too long, it has ended, or has no such program: who asks looks after the first
            return 255, ""
        return 255 if code is None else int(str(code)), said.decode(errors="replace")

    async def _check_running(self) -> None:
        with told_as(self._docker, f"look after the service {self.service.name}"):
            state = (await self._container.show())["State"]
        if not state.get("Running"):
            code = state.get("ExitCode")
            raise await self._failure(f"the service {self.service.name} ended before it was ready (exit {code})")

    async def _failure(self, problem: str) -> SandboxFailed:
        lines = await self._last_lines()
        said = "".join(f"\n  {line}" for line in lines) if lines else " and said nothing"
        return SandboxFailed(f"{problem}{':' if lines else ''}{said}", hint=f"look at its image, {self.service.image}")

    async def _last_lines(self) -> list[str]:
        with contextlib.suppress(*_ENGINE):
            said = "".join(await self._container.log(stdout=True, stderr=True, tail=LAST_LINES))
            return [hidden(line.rstrip()[:500], (self.service,)) for line in said.splitlines() if line.strip()]
        return []


def is_listening(table: str, port: int) -> bool:
    """Whether a server listens at port, by what /proc/net/tcp and tcp6 say (proc(5))."""
    rows = (line.split() for line in table.splitlines())
    return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTENING for row in rows if len(row) > 3)
