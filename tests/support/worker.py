"""A real worker process under test: its channel, its listeners on loopback, and what it reported.

async with running_worker(upstream) as worker:
    await worker.put(a_run(rules=[…]))
    proxy = await worker.listen("run_…", "proxy")      (host, port) of a loopback listener
    …
    records = await worker.records(1)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moat.api.rules import Rule
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.frames import FrameChannel
from moat.proxy.ca import CertificateAuthority, make
from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.messages import (
    Captured,
    Configure,
    Exchanges,
    Listen,
    ListenName,
    Named,
    Ping,
    Pong,
    SetRun,
    ToWorker,
    Uses,
    decode,
    encode,
)
from moat.proxy.record import record_of

RUN = "run_00000000000a"
OTHER_RUN = "run_00000000000b"
TOKEN = "s3cr3t-run-token"
PATIENCE_S = 30.0  # an external process: polled, bounded


def a_run(
    run_id: str = RUN,
    rules: tuple[Rule, ...] = (),
    policy: NetworkPolicy | None = None,
    token: str = TOKEN,
    *,
    is_open: bool = True,
    probe_answer: str = "",
) -> RunContext:
    """Return an open, permissive run."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return RunContext(run_id, digest, policy or NetworkPolicy(), rules, is_open, probe_answer)


@dataclass
class RunningWorker:
    """One worker process and the daemon's ends of its channels. asked: what the audit was asked, spent: use by use."""

    process: subprocess.Popen[bytes]
    channel: FrameChannel
    audit: FrameChannel
    ca: CertificateAuthority
    ca_file: Path
    log: Path
    seen: list[ExchangeRecord] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)
    asked: list[Spends] = field(default_factory=list)
    spent: list[Spend] = field(default_factory=list)
    uses: list[Uses] = field(default_factory=list)
    enters: str | None = ""  # what the audit says to first uses: "" entered, a problem, None no answer
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    held: dict[tuple[str, str], socket.socket] = field(default_factory=dict)
    is_ready: bool = False
    pongs: set[int] = field(default_factory=set)
    _pings: int = 0

    def send(self, message: ToWorker, *descriptors: int) -> None:
        self.channel.send(encode(message), descriptors)

    async def put(self, context: RunContext, names: Mapping[str, str] | None = None) -> None:
        """Set a run and wait until it is in force."""
        self.send(SetRun(context, names or {}))
        await self.settle()

    async def listen(self, run_id: str, name: ListenName, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Open a socket as a gate would, hand it over, and return where it listens. The test keeps its copy."""
        kind = socket.SOCK_DGRAM if name == "dns-udp" else socket.SOCK_STREAM
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind((host, port))
        if kind is socket.SOCK_STREAM:
            sock.listen(128)
        self.held[run_id, name] = sock
        await self.adopt(run_id, name, sock)
        address: tuple[str, int] = sock.getsockname()
        return address

    async def adopt(self, run_id: str, name: ListenName, sock: socket.socket) -> None:
        """Hand a socket over, and wait until it is served."""
        self.send(Listen(run_id, name), sock.fileno())
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything sent so far is in force."""
        self._pings += 1
        wanted = self._pings
        self.send(Ping(wanted))
        await self._until(lambda: wanted in self.pongs)

    async def records(self, count: int) -> list[ExchangeRecord]:
        """Return the records so far, once there are count of them."""
        await self._until(lambda: len(self.seen) >= count)
        return self.seen

    async def follow(self) -> None:
        """Take in what the worker reports."""
        while (received := await self.channel.receive()) is not None:
            match decode(received[0]):
                case Exchanges(lines=lines):
                    self.seen += map(record_of, lines.splitlines())
                case Pong(number):
                    self.pongs.add(number)
                case Named() as named:
                    self.named.append(named)
                case Uses() as uses:
                    self.uses.append(uses)
                case Captured() as captured:
                    self.captured.append(captured)
                case _:
                    self.is_ready = True
            async with self.changed:
                self.changed.notify_all()

    async def enter(self) -> None:
        """Take what is to be entered into the audit, and answer."""
        while (received := await self.audit.receive()) is not None:
            message = decode(received[0])
            assert isinstance(message, Spends)
            self.asked.append(message)
            self.spent += message.uses
            if self.enters is not None:
                self.answer(message, self.enters)
            async with self.changed:
                self.changed.notify_all()

    def answer(self, message: Spends, problem: str = "") -> None:
        """Say of uses that they are entered, or why none is."""
        self.audit.send(encode(Entered(message.id, (problem,) * len(message.uses) if problem else ())))

    async def captures(self, count: int) -> list[Captured]:
        """Return the tokens that were captured so far, once there are count of them."""
        await self._until(lambda: len(self.captured) >= count)
        return self.captured

    async def ready(self) -> None:
        await self._until(lambda: self.is_ready)

    async def _until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(condition)


@contextlib.asynccontextmanager
async def running_worker(
    folder: Path,
    roots: str = "",
    resolve: Mapping[str, str] | None = None,
    allow_cidrs: tuple[str, ...] = (),
    proxy: str = "",
) -> AsyncIterator[RunningWorker]:
    """Start a worker, configured; on leaving, end it and check that its log holds no secret."""
    ca = make(datetime.now(UTC))
    ca_file, log = folder / "moat-ca.pem", folder / "worker.log"
    ca_file.write_text(ca.certificate_pem)
    (ours, theirs), (desk, asking) = socket.socketpair(), socket.socketpair()
    passed = theirs.fileno(), asking.fileno()
    argv = [sys.executable, "-m", "moat.proxy.server.worker", "--channel", str(passed[0]), "--audit", str(passed[1]),
            "--log", str(log)]  # fmt: skip
    process = subprocess.Popen(argv, pass_fds=passed, cwd="/")  # noqa: ASYNC220 - returns at once
    theirs.close()
    asking.close()
    worker = RunningWorker(process, FrameChannel(ours), FrameChannel(desk), ca, ca_file, log)
    try:
        async with asyncio.TaskGroup() as group:
            following, entering = group.create_task(worker.follow()), group.create_task(worker.enter())
            await worker.ready()
            worker.send(Configure(ca.certificate_pem, ca.key_pem, roots, resolve or {}, allow_cidrs, proxy))
            await worker.settle()
            yield worker
            following.cancel()
            entering.cancel()
    finally:
        worker.channel.close()
        worker.audit.close()
        for sock in worker.held.values():
            sock.close()
        _end(process)
    assert b"s3cr3t" not in log.read_bytes()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, 9)
        process.wait()
        raise
