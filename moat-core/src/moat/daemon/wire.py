"""One HTTP request over a unix socket, in a page: http.client would bring half of the package email to every start.

Knows what the daemon sends: a status, heads, a body of a told length. A stream without one is for `client.events`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import IO

from moat.paths import socket_address

MAX_HEAD_BYTES = 65_536
_BROKEN = "the answer broke off"
_CREDENTIALS = struct.Struct("iII")  # process, user, group


class NotHttp(Exception):
    """Who listens there does not speak HTTP as the daemon does."""


def connected(path: Path, timeout_s: float) -> socket.socket:
    """Return a socket connected to the daemon at path. Raises OSError when there is none of ours."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(socket_address(path))
        _check_owner(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def exchange(sock: socket.socket, method: str, target: str, body: bytes | None, limit_bytes: int) -> tuple[int, bytes]:
    """Send one request and return status and body of its answer, at most limit_bytes long.

    body: JSON, None for none. Raises NotHttp; OSError when the other end is silent, or gone before its answer's end.
    """
    about = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    sock.sendall(
        f"{method} {target} HTTP/1.1\r\nHost: moat\r\nConnection: close\r\n{about}\r\n".encode() + (body or b"")
    )
    with sock.makefile("rb") as answer:
        line = answer.readline(MAX_HEAD_BYTES)
        if not line:
            raise ConnectionResetError("it hung up without an answer")
        version, _, status = line.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not status[:3].isdigit():
            raise NotHttp("its answer begins with something else")
        length = _length(_fields(answer), int(status[:3]))
        if length > limit_bytes:
            raise NotHttp(f"its answer has {length} bytes")
        data = answer.read(length)
        if len(data) < length:
            raise ConnectionResetError(_BROKEN)
        return int(status[:3]), data


def _fields(answer: IO[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    room = MAX_HEAD_BYTES
    while True:
        line = answer.readline(room)
        room -= len(line)
        name, colon, value = line.strip().partition(b":")
        if room <= 0 or (name and line.endswith(b"\n") and not colon):
            raise NotHttp("its answer's head makes no sense")
        if not line.endswith(b"\n"):
            raise ConnectionResetError(_BROKEN)
        if not name:
            return fields
        fields[name.lower()] = value.strip()


def _length(fields: dict[bytes, bytes], status: int) -> int:
    if status == 204:
        return 0
    told = fields.get(b"content-length", b"")
    if b"transfer-encoding" in fields or not told.isdigit():
        raise NotHttp("its answer has no length")
    return int(told)


def _check_owner(sock: socket.socket) -> None:
    """Refuse to tell anything to a daemon of another user's, should one listen here (unix(7): struct ucred)."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid != os.geteuid():
        raise ConnectionRefusedError(errno.EACCES, "it belongs to another user")
