from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import SandboxFailed
from moat.frames import FrameChannel
from moat.runtimes import gate
from moat.runtimes.door import DoorListener, OpenDoor, admit, netns_cookie, own_cookie, verdict
from support.doorman import ADD_LINK, changed_gate, refusal, said
from support.sealed import NONCE, stand_in

pytestmark = pytest.mark.timeout(60)

REOPEN = "real = gate.open_socket\n"
RESEND = "real = gate.Door.send\n"
CHANGES = [
    ("gate.VERSION = 99", "another version of the protocol"),
    (
        RESEND + "gate.Door.send = lambda self, m, s=None: real(self, m, s[:-1] if s else s)",
        "handed over 4 descriptors",
    ),
    (RESEND + "gate.Door.send = lambda self, m, s=None: real(self, m, s and [*s, s[0]])", "handed over 6 descriptors"),
    (
        RESEND + "gate.Door.send = lambda self, m, s=None: real(self, m, s and [open('/dev/null'), *s[1:]])",
        "no socket",
    ),
    (RESEND + "gate.Door.send = lambda self, m, s=None: real(self, m, s and [s[1], s[0], *s[2:]])", "not bound to"),
    ("gate.FULL_DOOR = (*gate.FULL_DOOR, ('more', 'tcp', '127.0.0.1', 81))", "no door"),
    ("gate.FULL_DOOR = gate.FULL_DOOR[:4]", "no door"),
    (REOPEN + "gate.open_socket = lambda k, h, p: real(k, h, p + 1)", "not bound to 127.0.0.1 port 19080"),
    (REOPEN + "gate.open_socket = lambda k, h, p: real(k, '127.0.0.2', p)", "not bound to 127.0.0.1 port 19080"),
    (
        REOPEN + "gate.open_socket = lambda k, h, p: real('udp' if p == 19080 else k, h, p)",
        "proxy socket is not IPv4 tcp",
    ),
    (
        "import socket\ngate.open_socket = lambda k, h, p: socket.socket(socket.AF_UNIX)",
        "proxy socket is not IPv4 tcp",
    ),
    (
        """
import socket
def open_socket(kind, host, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock
gate.open_socket = open_socket
""",
        "proxy socket is not waiting for clients",
    ),
    (
        REOPEN
        + """
def open_socket(kind, host, port):
    sock = real(kind, host, port)
    if kind == "udp": sock.connect(("127.0.0.1", 5353))
    return sock
gate.open_socket = open_socket
""",
        "dns-udp socket is not waiting for clients",
    ),
    *(
        (
            REOPEN
            + f"""
import socket
def open_socket(kind, host, port):
    sock = real(kind, host, port)
    if kind == {kind!r}: sock.setsockopt(socket.SOL_SOCKET, socket.{option}, 1)
    return sock
gate.open_socket = open_socket
""",
            "lets others bind its port",
        )
        for kind, option in (("tcp", "SO_REUSEPORT"), ("udp", "SO_REUSEPORT"), ("udp", "SO_REUSEADDR"))
    ),
    (
        REOPEN
        + """
import os
def open_socket(kind, host, port):
    if port == 443:
        gate.CLONE_NEWUSER = 0
        gate.ctypes.CDLL(None).unshare(gate.CLONE_NEWNET)
        with gate.socket.socket() as sock:
            gate.fcntl.ioctl(sock, gate.SIOCSIFFLAGS, gate.struct.pack("16sH14x", b"lo", 1))
    return real(kind, host, port)
gate.open_socket = open_socket
""",
        "different network namespaces",
    ),
    ("gate.netns_cookie = lambda: 4711", "another network namespace than its sockets"),
    ("gate.door_answer = lambda: 'guess'", "the proxy did not answer"),
    ("gate.interfaces = lambda: []", "did not say what it sees"),
    ("gate.interfaces = lambda: 7", "did not say what it sees"),
    ("gate.routes = lambda: ['default via 10.0.0.1']", "has a route"),
    ("gate.can_connect = lambda family, address: True", "can reach the host: 127.0.0.1"),
    (
        ADD_LINK
        + """
real = gate.enter_namespace
def enter_namespace():
    real()
    add_any_link()
gate.enter_namespace = enter_namespace
""",
        "has a network interface: leak",
    ),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES, ids=[problem for _, problem in CHANGES])
async def test_gate_that_is_not_exact_is_refused_and_told_why(tmp_path: Path, change: str, problem: str) -> None:
    daemon_says, gate_says = await refusal(tmp_path, change)

    assert problem in daemon_says
    assert problem in gate_says


async def test_exact_gate_is_let_in(tmp_path: Path) -> None:
    assert await refusal(tmp_path, "") == ("", "")


async def test_wrong_nonce_is_refused(tmp_path: Path) -> None:
    assert "nonce" in (await refusal(tmp_path, "", nonce="guess"))[0]


async def test_sockets_of_the_host_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # the host's 19080 may be taken, by moat itself
    small = (("proxy", "tcp", "127.0.0.1", port),)
    monkeypatch.setattr(gate, "SMALL_DOOR", small)

    daemon_says, _ = await refusal(tmp_path, f"gate.SMALL_DOOR = {small}", place="inside")

    assert "the host's network namespace" in daemon_says


@pytest.mark.skipif(os.geteuid() != 0, reason="returning to the host's namespace needs root")
async def test_gate_that_lies_about_being_on_the_host_is_found_by_the_canary(tmp_path: Path) -> None:
    change = """
import os
libc, host = gate.ctypes.CDLL(None), os.open("/proc/self/ns/net", 0)
real, cookie = gate.Door.look, gate.netns_cookie
gate.interfaces, gate.routes = lambda: [["lo", True]], lambda: []
def look(self, probe):
    libc.setns(host, 0)
    return {**real(self, probe), "reached": []}
gate.Door.look = look
"""
    daemon_says, _ = await refusal(tmp_path, change)

    assert daemon_says == "something connected to the host's listeners while the run was tested"


async def test_gate_without_a_daemon_gives_up_after_a_while(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with stand_in(tmp_path / "home") as daemon:
            config = {"nonce": NONCE, "door": str(daemon.ticket.folder), "place": "outside"}
            process = await stack.enter_async_context(changed_gate("gate.RECONNECT_S = 0.1", config))
            assert await said(process) == {"event": "open"}
            daemon.doors[0].close()

        assert (await said(process))["event"] == "lost"


async def test_refused_gate_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, not paths

    await refusal(tmp_path, RESEND + "gate.Door.send = lambda self, m, s=None: real(self, m, s and [*s, s[0]])")

    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - the loop's child watcher may keep its own


SEEN: Mapping[str, Any] = {
    "type": "probed",
    "interfaces": [["lo", True]],
    "routes": [],
    "reached": [],
    "cookie": 7,
    "answer": "yes",
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"interfaces": [["lo", True], ["tunl0", False], ["sit0", False]]}, ""),
        ({"interfaces": [["lo", True], ["tunl0", True]]}, "has a network interface: tunl0"),
        ({"interfaces": [["lo", True], ["eth0", False]]}, "has a network interface: eth0"),
        ({"interfaces": [["lo", False]]}, "did not say"),
        ({"routes": ["x"]}, "has a route"),
        ({"reached": ["192.0.2.1 port 5"]}, "can reach the host: 192.0.2.1 port 5"),
        ({"cookie": 8}, "another network namespace"),
        ({"answer": "no"}, "the proxy did not answer"),
        ({"type": "exited"}, "did not say"),
        ({"interfaces": None}, "did not say"),
        ({"routes": None}, "did not say"),
        ({"reached": {}}, "did not say"),
    ],
)
def test_verdict(change: dict[str, Any], problem: str) -> None:
    judged = verdict({**SEEN, **change}, answer="yes", cookie=7, visitors=0)

    assert problem in judged
    assert bool(judged) == bool(problem)


def test_any_visitor_refuses() -> None:
    assert "something connected" in verdict(SEEN, answer="yes", cookie=7, visitors=1)


def test_cookie_is_the_namespaces() -> None:
    with socket.socket() as one, socket.socket(socket.AF_UNIX) as other:
        assert netns_cookie(one) == netns_cookie(other) == own_cookie() == gate.netns_cookie()


@pytest.mark.parametrize(
    "first", [b"\xff\xff\xff\xff\0", b"\0\0\0\x02\0[]", b"\0\0\0\x02\0{}", b"\0\0\0\x02\x05{}", b""]
)
async def test_what_is_no_hello_is_refused(first: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(first)
    theirs.shutdown(socket.SHUT_WR)

    with contextlib.closing(theirs), pytest.raises(SandboxFailed):
        await admit(FrameChannel(ours, limit_bytes=1000), nonce="n", answer="a", taken_cookies=(), hand_on=_never)


@pytest.mark.parametrize("nonce", ["\ud800", "", None, 7, ["n"]], ids=["surrogate", "empty", "null", "number", "list"])
async def test_what_is_no_nonce_is_refused(nonce: object) -> None:
    ours, theirs = socket.socketpair()
    peer = FrameChannel(theirs)
    peer.send({"type": "hello", "version": gate.VERSION, "nonce": nonce, "sockets": []})

    with contextlib.closing(peer), pytest.raises(SandboxFailed, match="nonce"):
        await admit(FrameChannel(ours), nonce="n", answer="a", taken_cookies=(), hand_on=_never)


async def test_nonsense_from_an_open_door_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    peer, door = FrameChannel(theirs), OpenDoor(FrameChannel(ours), (), 7)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for message in ({"type": "connected", "id": "x"}, {"type": "connected", "id": 1}, {"type": "exited"}, {}):
        peer.send(message, (nothing,))
    os.close(nothing)
    peer.send({"type": "exited", "code": 3})
    peer.close()

    assert await door.watch() == 3
    with pytest.raises(ConnectionError):
        await door.connect(80)


async def test_gate_that_goes_away_fails_the_connections_that_wait() -> None:
    ours, theirs = socket.socketpair()
    peer, door = FrameChannel(theirs), OpenDoor(FrameChannel(ours), (), 7)

    async def go_away() -> None:
        await peer.receive()
        peer.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(door.watch())
        tasks.create_task(go_away())
        with pytest.raises(ConnectionError, match="gone"):
            await door.connect(80)


async def test_empty_nonce_lets_nobody_in() -> None:
    ours, theirs = socket.socketpair()
    peer = FrameChannel(theirs)
    peer.send({"type": "hello", "version": gate.VERSION, "nonce": "", "sockets": []})

    with contextlib.closing(peer), pytest.raises(SandboxFailed, match="nonce"):
        await admit(FrameChannel(ours), nonce="", answer="a", taken_cookies=(), hand_on=_never)


async def _never(sockets: object) -> None:
    raise AssertionError("nothing may be handed on")


async def test_listener_is_private_and_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "doors" / ("run_" + "0" * 80)
    listener = DoorListener(folder)

    assert (folder / "door.sock").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    async with asyncio.timeout(30):
        connection = socket.socket(socket.AF_UNIX)
        descriptor = os.open(folder, os.O_PATH)
        await asyncio.to_thread(connection.connect, f"/proc/self/fd/{descriptor}/door.sock")
        (await listener.accept()).close()
    connection.close()
    os.close(descriptor)
    listener.close()
    assert list(folder.iterdir()) == []
    listener.remove()
    assert not folder.exists()
