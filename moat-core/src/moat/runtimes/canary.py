"""Listeners on every address of the host that a sealed run must not be able to reach; they count who came.

Lives for the length of one probe. Accepts nothing that is said, answers nothing: a completed handshake is enough.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

_DUMP = 0x300 | 0x1  # NLM_F_ROOT | NLM_F_MATCH | NLM_F_REQUEST (rtnetlink(7))
_GET_ADDRESSES, _DONE, _ERROR = 22, 3, 2
_LOCAL_FIRST = (2, 1)  # IFA_LOCAL, IFA_ADDRESS: on point-to-point links only the former is ours
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg


class Canary:
    """Open with `with`; addresses, links and abstract say what to try, visitors() how many got through."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self.addresses: list[tuple[str, int]] = []
        self.abstract = f"moat-canary-{secrets.token_hex(16)}"

    def __enter__(self) -> Canary:
        try:
            for family, address in host_addresses():
                self._listen(family, address)
            self._hold(socket.socket(socket.AF_UNIX), "\0" + self.abstract)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def visitors(self) -> int:
        """Return how many connections came in since the last call. Never blocks."""
        return sum(_drain(listener) for listener in self._listeners)

    def _listen(self, family: int, address: tuple[str, int]) -> None:
        """Listen on one address; one that went away meanwhile, or is still tentative, is left out."""
        host, scope = address
        sock = socket.socket(family)
        target = (host, 0, 0, scope) if family == socket.AF_INET6 else (host, 0)
        try:
            self._hold(sock, target)
        except OSError:
            return
        self.addresses.append((host, sock.getsockname()[1]))

    def _hold(self, sock: socket.socket, target: str | tuple[str, int] | tuple[str, int, int, int]) -> None:
        try:
            sock.setblocking(False)
            sock.bind(target)
            sock.listen(8)
        except OSError:
            sock.close()
            raise
        self._listeners.append(sock)

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def host_addresses() -> list[tuple[int, tuple[str, int]]]:
    """Return (family, (address, scope)) for every address of this network namespace; scope: for link-local ones."""
    found: dict[tuple[int, tuple[str, int]], None] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.sendto(_HEADER.pack(_HEADER.size + len(body), _GET_ADDRESSES, _DUMP, 1, 0) + body, (0, 0))
        for message in _answers(netlink):
            if address := _parse(message):
                found[address] = None
    return list(found)


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    while True:
        data = netlink.recv(65_536)
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind in (_DONE, _ERROR) or length < _HEADER.size:
                return
            yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _parse(message: bytes) -> tuple[int, tuple[str, int]] | None:
    family, _, _, _, index = _ADDRESS.unpack_from(message)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attributes = _attributes(message[_ADDRESS.size :])
    packed = next((attributes[kind] for kind in _LOCAL_FIRST if kind in attributes), None)
    if packed is None:
        return None
    is_link_local = family == socket.AF_INET6 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return family, (socket.inet_ntop(family, packed), index if is_link_local else 0)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _drain(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count
