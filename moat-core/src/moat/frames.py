"""Framed messages over a unix stream socket: length, JSON object, and open descriptors beside it.

    4 bytes, big endian: length of the body │ 1 byte: count of descriptors │ body: one JSON object, UTF-8, on one line
                                                                             │ and, after a line feed, bytes as they are

Descriptors travel with the frame's first byte (SCM_RIGHTS, unix(7)). The count says which frame they belong to, since
one read may begin with an earlier frame that has none.
Used between daemon and worker, and between daemon and gate; the gate, which runs alone, has its own copy of the format.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import deque
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]  # JSON objects: each reader checks what it takes out

HEADER = struct.Struct("!IB")
TAIL = "tail"  # under which a message carries bytes that follow its JSON; JSON itself has none
LIMIT_BYTES = 16 * 1024 * 1024  # a snapshot with thousands of rules stays far below
MAX_DESCRIPTORS = 16
_READ_BYTES = 65_536


class FrameError(Exception):
    """The peer sent something that is no frame, too long a frame, or more descriptors than fit."""


def encode(message: Message, descriptor_count: int = 0) -> bytes:
    """Return message as one frame. Bytes under TAIL go as they are: escaping them costs more than all the rest."""
    tail = message.get(TAIL)
    if tail is None:
        body = json.dumps(message, separators=(",", ":")).encode()
    else:
        rest = {name: value for name, value in message.items() if name != TAIL}
        body = json.dumps(rest, separators=(",", ":")).encode() + b"\n" + tail
    return HEADER.pack(len(body), descriptor_count) + body


class FrameChannel:
    """Both directions of one socket, on the running loop. Takes the socket over; close() closes it.

    Sending never blocks the loop: what the socket does not take is queued. Receiving is for one task at a time.
    """

    def __init__(self, sock: socket.socket, *, limit_bytes: int = LIMIT_BYTES) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._inbox: deque[tuple[Message, list[int]]] = deque()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._sent: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._ended = False
        self._is_full = False
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_closed(self) -> bool:
        """Whether the peer is gone or close was called."""
        return self._ended

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Queue a frame; descriptors are duplicated, the caller keeps its own. A closed channel drops it silently."""
        if self._ended:
            return
        self._outbox.append((encode(message, len(descriptors)), [os.dup(number) for number in descriptors]))
        self._flush()

    async def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors (now the caller's to close), or None at the end.

        Raises FrameError for what is no frame; the channel is then closed.
        """
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._inbox.popleft()

    async def drained(self) -> None:
        """Wait until the socket has taken all that was queued, or the peer is gone. For one task at a time."""
        while self._outbox and not self._ended:
            self._sent = self._loop.create_future()
            await self._sent

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        for _, descriptors in (*self._inbox, *self._outbox):
            _close_all(descriptors)
        _close_all(self._descriptors)
        self._descriptors = []
        self._inbox.clear()
        self._outbox.clear()
        self._end()

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        self._descriptors += _descriptors_of(ancillary)
        if flags & socket.MSG_CTRUNC:
            self._fail(FrameError("more descriptors came than fit"))
        elif not data:
            self._loop.remove_reader(self._sock.fileno())
            self._end()
        else:
            self._buffer += data
            self._parse()

    def _parse(self) -> None:
        while len(self._buffer) >= HEADER.size:
            length, count = HEADER.unpack_from(self._buffer)
            if length > self._limit:
                return self._fail(FrameError(f"a frame of {length} bytes is over the limit"))
            if len(self._buffer) < HEADER.size + length:
                break
            with memoryview(self._buffer) as view:
                body = bytes(view[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            try:
                self._take(body, count)
            except FrameError as failure:
                return self._fail(failure)
        if not self._buffer and self._descriptors:
            return self._fail(FrameError("descriptors came that no frame announced"))
        return self._wake()

    def _take(self, body: bytes, count: int) -> None:
        head, has_tail, tail = body.partition(b"\n")
        try:
            message = json.loads(head)
        except (ValueError, RecursionError):  # the second for what is nested deeper than Python's stack
            raise FrameError("a frame is not JSON") from None
        if not isinstance(message, dict):
            raise FrameError("a frame is not a JSON object")
        if has_tail:
            message[TAIL] = tail
        if count > len(self._descriptors):
            raise FrameError("a frame announced descriptors that did not come")
        self._inbox.append((message, self._descriptors[:count]))
        del self._descriptors[:count]

    def _flush(self) -> None:
        while self._outbox:
            data, descriptors = self._outbox[0]
            try:
                sent = self._sock.sendmsg([data], _ancillary(descriptors))
            except (BlockingIOError, InterruptedError):
                self._is_full = True
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                for _, rest in self._outbox:
                    _close_all(rest)
                self._outbox.clear()  # the reader sees the end and tells
                break
            _close_all(descriptors)
            self._outbox.popleft()
            if sent < len(data):
                self._outbox.appendleft((data[sent:], []))
        if self._is_full and self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())
        self._is_full = False
        _settle(self._sent)

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._loop.remove_reader(self._sock.fileno())
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        _settle(self._waiter)
        if self._ended:
            _settle(self._sent)


def _settle(waited: asyncio.Future[None] | None) -> None:
    if waited is not None and not waited.done():
        waited.set_result(None)


def _descriptors_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            found += numbers
    return found


def _ancillary(descriptors: list[int]) -> list[tuple[int, int, bytes]]:
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]


def _close_all(descriptors: list[int]) -> None:
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)
