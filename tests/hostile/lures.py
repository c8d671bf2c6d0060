"""What stands about on a host and must never be touched from inside: listeners on every address, unix sockets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Start = Callable[[Callable[[], None]], threading.Thread]
KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)


@dataclass
class Lures:
    """tcp, udp: ports, the same on every address. paths: of unix sockets; NUL first means abstract."""

    tcp: int = 0
    tcp6: int = 0
    udp: int = 0
    udp6: int = 0
    paths: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def targets(self, addresses: list[str]) -> dict[str, list[list[object]]]:
        """Return what the hostile program is to aim at, for the addresses of this host."""
        return {
            "tcp": [[address, self.tcp6 if ":" in address else self.tcp] for address in addresses],
            "udp": [[address, self.udp6 if ":" in address else self.udp] for address in addresses],
        }


@contextlib.contextmanager
def lures(folders: list[Path], start: Start, name: str) -> Iterator[Lures]:
    """Open everything in a thread that start puts where it belongs; folders: where path sockets are made."""
    made, ready = Lures(), threading.Event()
    name = f"{name}-{os.getpid()}"  # another suite may be running beside this one, or have been killed
    stop_reader, stop_writer = socket.socketpair()
    thread = start(lambda: _stand(made, folders, name, ready, stop_reader))
    try:
        assert ready.wait(30), "the lures did not start"
        yield made
    finally:
        stop_writer.close()
        thread.join(10)
        stop_reader.close()
        for path in made.paths:
            if not path.startswith("\0"):
                Path(path).unlink(missing_ok=True)


def _stand(made: Lures, folders: list[Path], name: str, ready: threading.Event, stop: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        for sock, words in _sockets(made, folders, name):
            stack.callback(sock.close)
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, words)
        selector.register(stop, selectors.EVENT_READ, "")
        ready.set()
        while True:
            for key, _ in selector.select():
                if not key.data:
                    selector.close()
                    return
                made.touched.append(key.data)
                _take(key.fileobj)


def _sockets(made: Lures, folders: list[Path], name: str) -> Iterator[tuple[socket.socket, str]]:
    for attribute, family, kind in (
        ("tcp", socket.AF_INET, socket.SOCK_STREAM),
        ("tcp6", socket.AF_INET6, socket.SOCK_STREAM),
        ("udp", socket.AF_INET, socket.SOCK_DGRAM),
        ("udp6", socket.AF_INET6, socket.SOCK_DGRAM),
    ):
        sock = socket.socket(family, kind)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        setattr(made, attribute, sock.getsockname()[1])
        yield _listening(sock), attribute
    for kind in KINDS:
        for path in (
            *(str(folder / f"moat-lure-{name}-{kind.name}") for folder in folders),
            f"\0moat-{name}-{kind.name}",
        ):
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.bind(path)
            if not path.startswith("\0"):
                Path(path).chmod(0o777)
            made.paths.append(path)
            yield _listening(sock), repr(path)


def _listening(sock: socket.socket) -> socket.socket:
    if sock.type != socket.SOCK_DGRAM:
        sock.listen()
    return sock


def _take(sock: object) -> None:
    assert isinstance(sock, socket.socket)
    with contextlib.suppress(OSError):
        if sock.type == socket.SOCK_DGRAM:
            sock.recv(4096)
        else:
            sock.accept()[0].close()


@contextlib.contextmanager
def host_memory(key: int) -> Iterator[None]:
    """Leave a System V message queue and a piece of POSIX shared memory that anybody on the host may use."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.msgget(key, 0o1666)
    assert queue >= 0
    memory = Path(f"/dev/shm/moat-lure-{key}")
    memory.write_text("a lure")
    memory.chmod(0o666)
    try:
        yield
    finally:
        libc.msgctl(queue, 0, None)
        memory.unlink()
