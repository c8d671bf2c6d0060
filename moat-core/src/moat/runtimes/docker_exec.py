"""One more command in a run's container: started, carried, signalled, and stopped when nobody wants it any more.

    exec create ─▶ start, attached ─▶ its process is known ─▶ carry ─▶ exit code

The engine gives it what the container has: namespaces, no new privileges, no capability, the filter, user, variables,
folder, control group; `tests/integration/test_exec.py` compares. It has no call for signals, so they are sent to the
process itself, which is the invoker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal

import aiodocker
from aiodocker.execs import Exec

from moat.api.errors import SandboxFailed
from moat.api.runtimes import Execution, Stdio
from moat.runtimes.docker_engine import Streams, told_as, uninterrupted
from moat.runtimes.docker_stdio import Draining, feed, feed_keys, is_terminal_wanted, own_descriptors, set_up_terminal
from moat.runtimes.engine import CALL_TIMEOUT_S, NOT_FOUND, Engine

log = logging.getLogger(__name__)

UNUSABLE, ABSENT = 126, 127  # as a shell says it (POSIX, 2.8.2), and `moat run`
KILLED = 128 + signal.SIGKILL
COMPLAINT_BYTES = 4096
POLL_S, SLOWEST_POLL_S = 0.02, 0.5  # the engine tells the end of such a command to nobody who waits
# What would detach the engine from a terminal. It cannot be switched off, and its default (ctrl-p ctrl-q) is typed by
# people. The first key waits for the second: here ctrl-space, which few programs use, for one that never follows it.
DETACH_KEYS = "ctrl-@,ctrl-^"


async def execute(
    engine: type[Engine], container_id: str, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None
) -> DockerExecution:
    """Start argv in a container and return it once it runs or has ended. Raises SandboxFailed."""
    async with contextlib.AsyncExitStack() as undo:
        docker = engine.open()
        undo.push_async_callback(docker.close)
        stdio = undo.enter_context(own_descriptors(stdio))
        has_terminal = terminal is not None and is_terminal_wanted(stdio)
        with told_as(docker, "start a command in a live run"):
            made = await docker.containers.container(container_id).exec(
                argv, stdin=True, tty=has_terminal, detach_keys=DETACH_KEYS
            )
        streams = Streams(docker, made.start())
        undo.push_async_callback(streams.close)
        execution = DockerExecution(docker, made, streams, stdio)
        undo.push_async_callback(execution.kill)
        if terminal is not None:
            set_up_terminal(stdio, has_one_inside=has_terminal)
            execution.takes_keys = not has_terminal
        await uninterrupted(streams.open())
        await execution.begun()
        if has_terminal and terminal is not None:
            execution.has_terminal = True
            await execution.resize(*terminal)
        execution.undo = undo.pop_all()
    return execution


class DockerExecution(Execution):
    """A command that was started in a container. Its streams are carried while somebody waits."""

    def __init__(self, docker: Engine, made: Exec, streams: Streams, stdio: Stdio) -> None:
        self._docker = docker
        self._made = made
        self._streams = streams
        self._stdio = stdio
        self._draining = Draining(streams)
        self._pid = 0
        self._process = -1
        self.takes_keys = False
        self.has_terminal = False
        self.undo = contextlib.AsyncExitStack()

    async def begun(self) -> None:
        """Return when the command runs, or has ended. Raises SandboxFailed when it could not be started."""
        with told_as(self._docker, "start a command in a live run"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                facts = await self._facts()
                while facts and facts.get("ExitCode") is None and not facts.get("Pid"):
                    await asyncio.sleep(POLL_S)
                    facts = await self._facts()
        if facts and not self._docker.has_begun(facts) and (complaint := await self._complaint()):
            problem = f"{self._docker.title} could not start the command: {complaint}"
            code = ABSENT if any(words in problem for words in ("not found", "no such file")) else UNUSABLE
            raise SandboxFailed(problem, exit_code=code)
        if facts and facts.get("Running"):
            # From now on the number is this process's, whatever ends: no other is ever taken for it.
            with contextlib.suppress(ProcessLookupError):
                self._pid = int(str(facts["Pid"]))
                self._process = os.pidfd_open(self._pid)

    async def wait(self) -> int:
        """Carry input and output until the command has ended; return its exit code, or 137 if the run has ended."""
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed())
                await self._draining.carry(self._stdio, lambda: group.create_task(self.signal(signal.SIGPIPE)))
                code = await self._exit_code()
                feeding.cancel()
        except BaseExceptionGroup as failures:
            lost, _ = failures.split(SandboxFailed)
            if lost is None or not isinstance(lost.exceptions[0], SandboxFailed):
                raise
            raise lost.exceptions[0] from None
        return code

    async def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens when it has ended."""
        if number == signal.SIGKILL:
            self._draining.hurry()
        if self._process < 0 or select.select([self._process], [], [], 0)[0]:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                if os.getpgid(self._pid) == self._pid:
                    os.killpg(self._pid, number)
                else:
                    signal.pidfd_send_signal(self._process, number)
            except PermissionError:
                log.warning("a command in a live run cannot be signalled", extra={"process": self._pid})

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its size; nothing happens without one, or when the command has ended."""
        if self.has_terminal:
            with contextlib.suppress(SandboxFailed), told_as(self._docker, "resize the terminal"):
                await self._made.resize(h=rows, w=columns)

    async def close(self) -> None:
        """Kill the command and let go of it. Safe to call twice."""
        await uninterrupted(self.undo.aclose())

    async def kill(self) -> None:
        """End what still runs of its process group, and forget the process."""
        await self.signal(signal.SIGKILL)
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    async def _feed(self) -> None:
        if self.takes_keys:
            await feed_keys(self._stdio.stdin, self._streams, self.signal)
        else:
            await feed(self._stdio.stdin, self._streams)

    async def _exit_code(self) -> int:
        pause = POLL_S
        with told_as(self._docker, "tell the command's end"):
            while facts := await self._facts():
                if not facts.get("Running") and facts.get("ExitCode") is not None:
                    return int(str(facts["ExitCode"]))
                await asyncio.sleep(pause)
                pause = min(2 * pause, SLOWEST_POLL_S)
        return KILLED

    async def _complaint(self) -> str:
        """Return what the engine says in place of output when nothing was started, "" when that is the command's."""
        pieces: list[tuple[int, bytes]] = []
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while sum(len(data) for _, data in pieces) < COMPLAINT_BYTES and (piece := await self._streams.read()):
                pieces.append(piece)
        said = b"".join(data for _, data in pieces)[:COMPLAINT_BYTES]
        if not self._docker.is_complaint(said):
            self._streams.put_back(pieces)
            return ""
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[0] if lines else "it does not say why"

    async def _facts(self) -> dict[str, object]:
        """Return what the engine knows of the command; nothing when the container is gone."""
        try:
            return await self._made.inspect()
        except aiodocker.DockerError as failure:
            if failure.status == NOT_FOUND:
                return {}
            raise
