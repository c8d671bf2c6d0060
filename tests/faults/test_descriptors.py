"""No descriptors left, really: what is accepted waits, the daemon answers, and all is well when some are closed."""

from __future__ import annotations

import asyncio
import base64
import os
import select
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from moat.daemon import lifecycle
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home
from support.installation import eventually
from support.living import a_sealed_run

from faults.counts import Counts

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
LIMIT = 160
POOR = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
from moat.daemon.main import main
sys.exit(main())
"""


async def test_a_worker_without_descriptors_left_serves_everybody_again_when_some_are_closed(
    home: Home, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-P", "-c", POOR))
    client = ensure_running(home)
    port, worker = client.health().proxy_port, client.health().worker_pid
    tokens = [_registered(client) for _ in range(8)]  # one run alone may have a quarter of the descriptors
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        assert _answered(_asking(port, tokens[0]))
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            complaints = _complaints(home)
            with ExitStack() as held:
                for sock in _served(port, tokens, lambda complaints=complaints: _complaints(home) > complaints):  # type: ignore[misc] # mypy infers no lambda
                    held.enter_context(sock)
                assert _held_by(worker) >= LIMIT - 1

                assert client.health().worker_pid == worker  # it answers, and takes runs
                client.end(_registered(client), 0)
            assert _answered(_asking(port, tokens[0]))
            assert await sealed.request() == "200"
            assert client.health().worker_pid == worker
            await asyncio.to_thread(counts.become, first)


def _held_by(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _registered(client: DaemonClient) -> str:
    """Register a run by token that may ask for nothing; it lives as long as the test."""
    made = client.register(RegisterRequest(new_run_id(), network_policy="strict", needs_door=False))
    client.tell_container(made.auth_token, str(os.getpid()))
    return made.auth_token


def _served(port: int, tokens: list[str], is_full: Callable[[], bool]) -> Iterator[socket.socket]:
    """Open connections that are served and kept, as different runs in turn, until the worker says that it is full."""
    for number in range(LIMIT):
        sock = _asking(port, tokens[number % len(tokens)])
        yield sock
        eventually("it is answered, or there is no room", lambda sock=sock: _came(sock) or is_full())
        if not _came(sock):
            return
        assert sock.recv(4096).startswith(b"HTTP/1.1 403 "), number
    raise AssertionError("there are more descriptors than there may be")


def _came(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def _asking(port: int, token: str) -> socket.socket:
    """Return a connection over which something was asked that is answered by the proxy, and goes on."""
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    sock = socket.create_connection(("127.0.0.1", port), 20)
    head = f"GET http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def _answered(sock: socket.socket) -> bool:
    with sock:
        return sock.recv(4096).startswith(b"HTTP/1.1 403 ")


def _complaints(home: Home) -> int:
    return (home.daemon / "daemon.log").read_text().count("cannot accept")
