"""Many runs at once, busy for a while: some behind real doors, some with a token; others come, change and go meanwhile.

    client ══ the run's own namespace ══▶ door ─┐
    client ── token ──▶ shared listener ────────┴─▶ worker ══ TLS ══▶ echo: the credential that came, backwards
                                                 daemon ─ renewals ──▶ echo: the next token for the one before it

Each answer says which credential was spent, so that one of another profile's is seen; and what is two renewals old is
answered with 401, so that one that was left behind is seen too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.daemon.gates import a_gate
from moat.api.credentials import Credential
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.ids import new_run_id
from moat.paths import Home
from moat.store.credentials import CredentialStore
from support.upstream import make_test_ca

from faults.rotating import HOST, TOKENS_HOST, rotating, token_of

PROFILES = tuple(f"p{number}" for number in range(10))
CLONE_NEWNET = 0x4000_0000
BATCH = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it. requests, minutes: it goes on until both are reached."""

    runs: int
    doors: int
    minutes: float
    requests: int
    clients: int = 64
    refresh_every_s: float = 10.0


@dataclass(slots=True)
class Found:
    """What was seen. wrong: answers that are no 200 with the run's own credential. tokens: all that were spent."""

    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    tokens: set[bytes] = field(default_factory=set)
    changes: int = 0
    memory_mb: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """A registered run. gate: the process in its namespace, 0 without a door."""

    made: RegisterResponse
    profile: str
    gate: int = 0


@asynccontextmanager
async def an_internet(folder: Path, refresh_every_s: float) -> AsyncIterator[Home]:
    """Run the echo service, and make an installation whose grants are spent there, one token a profile; start it."""
    ca = make_test_ca()
    certificate, key = ca.leaf((HOST, TOKENS_HOST), False)
    (folder / "echo.pem").write_bytes(certificate + key)
    program = str(Path(__file__).with_name("echo.py"))
    echo = await asyncio.create_subprocess_exec(sys.executable, program, folder / "echo.pem", folder / "port")
    try:
        async with asyncio.timeout(30):
            while not (folder / "port").exists():  # noqa: ASYNC110 # another process
                await asyncio.sleep(0.02)
        pins = dict.fromkeys((HOST, TOKENS_HOST), f"127.0.0.1:{(folder / 'port').read_text()}")
        with rotating(refresh_every_s) as made:
            roots = made.file("roots.pem", ca.pem)
            made.configure({"upstream": {"ca_bundle": str(roots), "resolve": pins, "allow_cidrs": ["127.0.0.0/8"]}})
            home = Home(made.home / ".moat")
            for profile in PROFILES:
                CredentialStore(home, profile=profile).save(Credential("rotating", token_of(profile), "test"))
            await asyncio.to_thread(made.ok, "proxy", "start")
            yield home
    finally:
        echo.kill()
        await echo.wait()


async def soak(home: Home, size: Size) -> Found:
    """Register runs, keep them busy, and return what was seen."""
    client, found = DaemonClient(home), Found()
    trust = ssl.create_default_context(cadata=(home.ca / "ca.pem").read_text())
    async with AsyncExitStack() as stack:
        runs = [await _run(stack, home, client, number, size) for number in range(size.runs)]
        busy = [run for run in runs if run.gate] + [run for run in runs if not run.gate][: size.clients]
        port = client.health().proxy_port
        async with asyncio.TaskGroup() as group:
            ended = asyncio.Event()
            for run in busy:
                group.create_task(_ask(run, port, trust, found, ended))
            group.create_task(_change(client, runs, found, ended))
            group.create_task(_watch(client, found, size, ended))
        ends = [asyncio.to_thread(client.end, run.made.auth_token, 0) for run in runs]
        for end in ends:
            await end
    return found


async def _run(stack: AsyncExitStack, home: Home, client: DaemonClient, number: int, size: Size) -> Run:
    profile, has_door = PROFILES[number % len(PROFILES)], number < size.doors
    asked = RegisterRequest(new_run_id(), grants=("rotating",), profile=profile, needs_door=has_door)
    made = await asyncio.to_thread(client.register, asked)
    if made.door is None:
        await asyncio.to_thread(client.tell_container, made.auth_token, str(os.getpid()))
        return Run(made, profile)
    gate = await stack.enter_async_context(a_gate(made.run_id, home.door(made.run_id), made.door.nonce))
    assert (await gate.event())["event"] == "open"
    return Run(made, profile, gate.process.pid)


async def _ask(run: Run, port: int, trust: ssl.SSLContext, found: Found, ended: asyncio.Event) -> None:
    """Ask over and over, some requests at once, over connections that live for a while."""
    request = f"GET /user HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    wanted = token_of(run.profile).removesuffix("0").encode()
    while not ended.is_set():
        reader, writer = await _connected(run, port, trust)
        for _ in range(50):
            writer.write(request * BATCH)
            for _ in range(BATCH):
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                found.requests += 1
                found.tokens.add(body[::-1])
                if not head.startswith(b"HTTP/1.1 200 ") or not body[::-1].startswith(wanted):
                    found.wrong.append(f"{run.made.run_id}: {head[:40]!r} {body[::-1]!r}")
            if ended.is_set():
                break
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])


async def _connected(run: Run, port: int, trust: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = _opened(run, port)
    reader, writer = await asyncio.open_connection(sock=sock)
    token = base64.b64encode(f"moat:{run.made.auth_token}".encode()).decode()
    identity = "" if run.gate else f"Proxy-Authorization: Basic {token}\r\n"
    writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{identity}\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in answer.split(b"\r\n")[0], answer
    await writer.start_tls(trust, server_hostname=HOST)
    return reader, writer


def _opened(run: Run, port: int) -> socket.socket:
    """Return a connection to the run's proxy: from inside its namespace, or to the shared listener."""
    if not run.gate:
        return socket.create_connection(("127.0.0.1", port))
    with _inside(run.gate):
        return socket.create_connection(("127.0.0.1", 19080))


@contextlib.contextmanager
def _inside(pid: int) -> Iterator[None]:
    """Be in a process's network namespace for a block; a socket stays in the one it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path(f"/proc/{pid}/ns/net").open() as other:
        assert libc.setns(other.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


async def _change(client: DaemonClient, runs: list[Run], found: Found, ended: asyncio.Event) -> None:
    """Have runs come and go, and live ones get their credentials anew."""
    while not ended.is_set():
        again = runs[found.changes % len(runs)]
        request = RegisterRequest(
            again.made.run_id, grants=("rotating",), profile=again.profile, auth_token=again.made.auth_token
        )
        await asyncio.to_thread(client.register, request)
        asked = RegisterRequest(new_run_id(), grants=("rotating",), profile=PROFILES[0], needs_door=False)
        made = await asyncio.to_thread(client.register, asked)
        await asyncio.to_thread(client.end, made.auth_token, 0)
        found.changes += 1
        await asyncio.sleep(0.05)


async def _watch(client: DaemonClient, found: Found, size: Size, ended: asyncio.Event) -> None:
    """Look at the daemon's memory now and then, and say when it is enough."""
    health = await asyncio.to_thread(client.health)
    loop = asyncio.get_running_loop()
    until = loop.time() + size.minutes * 60
    while loop.time() < until or found.requests < size.requests:
        await asyncio.sleep(min(5.0, size.minutes * 6))
        found.memory_mb.append(sum(pss_mb(pid) for pid in (health.pid, health.worker_pid)))
    ended.set()


def pss_mb(pid: int) -> float:
    """Return what a process has of the memory, shared parts shared."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
