"""Keeps one proxy worker alive: spawns it, tells it what it must know, replaces it on the same sockets when it dies.

    Runs ── configure · put · listen · drop ──▶ Worker ── frames ──▶ moat.proxy.server.worker ── Spends ──▶ desk
                                                  │ keeps a copy of all that is in force, for the next one
    Records ◀── exchanges · named ─────────────────┘

While no worker lives, connections wait in the backlog of the sockets: nothing is let through, nothing is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from moat.api.errors import DaemonError
from moat.api.runs import RunContext
from moat.frames import FrameChannel, FrameError, Message
from moat.proxy.messages import (
    Configure,
    Drop,
    Exchanges,
    Listen,
    ListenName,
    Ping,
    SetRun,
    Stop,
    ToWorker,
    decode,
    encode,
)

COMMAND = (sys.executable, "-P", "-m", "moat.proxy.server.worker")
BARRIER_TIMEOUT_S = 10.0  # a worker that has not read its messages for so long hangs, and is replaced
STOP_TIMEOUT_S = 5.0
LONG_LIFE_S = 10.0  # a worker that lived longer did not die of its start: the next one comes at once
FIRST_DELAY_S, MAX_DELAY_S = 0.05, 5.0

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told what the worker reports."""

    def exchanges(self, report: Exchanges) -> None:
        """Take finished exchanges of one run."""
        ...

    def named(self, run_id: str, name: str, address: str) -> None:
        """Take a name that a run was told an address for."""
        ...


class Worker:
    """The worker's process and what is in force in it. Nothing waits but serve, barrier and stop."""

    def __init__(self, observer: Observer, log_file: Path, env: Mapping[str, str], command: Sequence[str]) -> None:
        self._observer = observer
        self._log_file = log_file
        self._env = dict(env)
        self._command = tuple(command)
        self._configuration: Configure | None = None
        self._runs: dict[str, SetRun] = {}
        self._sockets: dict[Listen, socket.socket] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._channel: FrameChannel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._ended = asyncio.Event()
        self.desk: Callable[[socket.socket], None] = socket.socket.close  # who takes each worker's socket to the audit
        self.takers: dict[str, Callable[[Any], None]] = {}  # who takes what the worker asks, by the message's type

    def answer(self, message: ToWorker) -> None:
        """Send the answer to a question of the worker's; one of a worker before this one is not understood by it."""
        self._send(message)

    @property
    def pid(self) -> int:
        """The worker's process id, 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    def configure(self, configuration: Configure) -> bool:
        """Put CA and upstream settings in force; the same again does nothing. Return whether they are others."""
        if configuration == self._configuration:
            return False
        self._configuration = configuration
        self._send(configuration)
        return True

    def put(self, context: RunContext, names: Mapping[str, str] | None = None) -> None:
        """Add a run, or replace it whole. names: addresses given before; None keeps those known."""
        if names is None:
            names = self._runs[context.run_id].names if context.run_id in self._runs else {}
        self._runs[context.run_id] = SetRun(context, names)
        self._send(self._runs[context.run_id])

    def listen(self, run_id: str, name: ListenName, sock: socket.socket) -> None:
        """Let the worker accept on a socket. Takes the socket over: it is kept for the next worker, closed by drop."""
        message = Listen(run_id, name)
        self._forget(message)
        self._sockets[message] = sock
        self._send(message, sock)

    def drop(self, run_id: str) -> None:
        """Close a run's sockets and connections, and forget it."""
        self._runs.pop(run_id, None)
        for message in tuple(self._sockets):
            if message.run_id == run_id:
                self._forget(message)
        self._send(Drop(run_id))

    async def barrier(self) -> None:
        """Wait until everything sent so far is in force, by a successor if the worker dies meanwhile; not after stop.

        Raises DaemonError when that takes too long; the worker is then killed, so that a successor comes.
        """
        if self._ended.is_set():
            return
        number = next(self._numbers)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings[number] = answered
        self._send(Ping(number))
        try:
            async with asyncio.timeout(BARRIER_TIMEOUT_S):
                await answered
        except TimeoutError:
            self._kill()
            raise DaemonError(
                "the proxy worker does not answer", hint="see daemon.log, or run: moat proxy stop"
            ) from None
        finally:
            del self._pings[number]

    async def serve(self) -> None:
        """Keep a worker running until stop is called."""
        delay_s = FIRST_DELAY_S
        clock = asyncio.get_running_loop().time
        try:
            while not self._is_stopping:
                born = clock()
                try:
                    await self._live()
                except OSError as failure:  # no descriptors or processes left: a later attempt may find some
                    log.error("no worker could be started", extra={"problem": str(failure)})
                delay_s = FIRST_DELAY_S if clock() - born > LONG_LIFE_S else min(delay_s * 2, MAX_DELAY_S)
                if not self._is_stopping:
                    await asyncio.sleep(delay_s)
        finally:
            self._ended.set()
            for number in self._pings:
                self._take_pong(number)
            for message in tuple(self._sockets):
                self._forget(message)

    async def stop(self) -> None:
        """End the worker, letting its exchanges end and their records come; kill it when that takes too long."""
        self._is_stopping = True
        self._send(Stop())
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._ended.wait()
        except TimeoutError:
            self._kill()
            await self._ended.wait()

    async def _live(self) -> None:
        """Run one worker from its start to its end."""
        process, channel = await self._spawn()
        self._process, self._channel = process, channel
        log.info("worker started", extra={"worker_pid": process.pid})
        try:
            self._replay()
            await self._pump(channel)
        finally:
            self._channel = None
            channel.close()
            code = await asyncio.shield(_ended(process))
            self._process = None
            if not self._is_stopping:
                log.error("the worker ended and is replaced", extra={"worker_pid": process.pid, "exit_code": code})

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, FrameChannel]:
        with contextlib.ExitStack() as pairs:
            ours, theirs = socket.socketpair()
            pairs.enter_context(ours)
            desk, asking = socket.socketpair()
            pairs.enter_context(desk)
            with theirs, asking, self._output() as (output, logged):
                process = await asyncio.create_subprocess_exec(
                    *self._command, "--channel", str(theirs.fileno()), "--audit", str(asking.fileno()), *logged,
                    pass_fds=(theirs.fileno(), asking.fileno()), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env=self._env, cwd="/",
                )  # fmt: skip
            pairs.pop_all()
        self.desk(desk)
        return process, FrameChannel(ours)

    @contextlib.contextmanager
    def _output(self) -> Iterator[tuple[IO[bytes], tuple[str, ...]]]:
        """Give where the worker's output goes, and the words that tell it: nowhere, if its log cannot be written."""
        with contextlib.ExitStack() as stack:
            logged: tuple[str, ...] = ("--log", str(self._log_file))
            try:
                output = stack.enter_context(self._log_file.open("ab"))
            except OSError as failure:  # a home that turned read-only; runs are served without a log
                log.warning("the worker has no log", extra={"path": str(self._log_file), "problem": str(failure)})
                output, logged = stack.enter_context(Path(os.devnull).open("ab")), ()
            yield output, logged

    def _replay(self) -> None:
        if self._configuration is not None:
            self._send(self._configuration)
        for run in self._runs.values():
            self._send(run)
        for message, sock in self._sockets.items():
            self._send(message, sock)
        for number in self._pings:
            self._send(Ping(number))
        if self._is_stopping:
            self._send(Stop())

    async def _pump(self, channel: FrameChannel) -> None:
        try:
            while (received := await channel.receive()) is not None:
                message, descriptors = received
                for descriptor in descriptors:
                    os.close(descriptor)  # a worker has none to give
                self._take(message)
        except FrameError as failure:
            log.error("the worker broke the protocol", extra={"problem": str(failure)})

    def _take(self, message: Message) -> None:
        try:
            match message.get("type"):
                case "exchanges" | "forwarded":
                    self._take_exchanges(message)
                case "named":
                    self._take_name(str(message["run_id"]), str(message["name"]), str(message["address"]))
                case "pong":
                    self._take_pong(message.get("id"))
                case kind if kind in self.takers:
                    self.takers[kind](decode(message))
        except (KeyError, ValueError) as failure:
            log.warning("a report of the worker does not fit", extra={"problem": str(failure)})

    def _take_exchanges(self, message: Message) -> None:
        report = decode(message)
        if isinstance(report, Exchanges):
            self._observer.exchanges(report)

    def _take_name(self, run_id: str, name: str, address: str) -> None:
        if (run := self._runs.get(run_id)) is not None:
            self._runs[run_id] = SetRun(run.context, {**run.names, name: address})
            self._observer.named(run_id, name, address)

    def _take_pong(self, number: object) -> None:
        answered = self._pings.get(number) if isinstance(number, int) else None
        if answered is not None and not answered.done():
            answered.set_result(None)

    def _send(self, message: ToWorker, sock: socket.socket | None = None) -> None:
        if self._channel is not None:
            self._channel.send(encode(message), () if sock is None else (sock.fileno(),))

    def _forget(self, message: Listen) -> None:
        if (sock := self._sockets.pop(message, None)) is not None:
            sock.close()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Return the exit code of a worker whose channel is closed: it ends by itself, or is made to."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
