"""HTTP/2 frames, cut off the bytes and bounded before anything reads them. No I/O, no protocol states.

bytes ─▶ Cutter ─▶ Frame, Frame, …          preface and first SETTINGS, lengths, field sections in pieces, pushes
Flood counts frames that ask for work and bring nothing; they may come in bursts, but not for ever
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from h2.errors import ErrorCodes

from moat.proxy.http1 import MAX_HEAD_BYTES, Malformed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384  # RFC 9113 §4.2: the default, and what is fair between streams
HEADER_BYTES = 9
MAX_CONTINUATIONS = 8
FLOOD_BURST = 1_000  # a browser or gRPC sends tens
FLOOD_PER_S = 50.0

_ACK = _END_STREAM = 1
_PADDED = 8
_PADDING = 256  # at most, with its length


class Kind(IntEnum):
    """The type of a frame (RFC 9113 §6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Broken(Malformed):
    """The connection is beyond use. code: what the peer is told."""

    def __init__(self, reason: str, code: ErrorCodes = ErrorCodes.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = int(code)


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame. kind: a number, perhaps one that nobody knows. raw: with its header."""

    kind: int
    flags: int
    stream: int
    raw: bytes = field(repr=False)

    @property
    def payload(self) -> bytes:
        """What follows the header."""
        return self.raw[HEADER_BYTES:]

    @property
    def is_idle(self) -> bool:
        """Whether it asks for work and brings nothing: what floods are made of (CVE-2019-9511 and its kin)."""
        length = len(self.raw) - HEADER_BYTES
        if self.kind == Kind.DATA:
            return not self.flags & _END_STREAM and length <= (_PADDING if self.flags & _PADDED else 0)
        if self.kind in (Kind.HEADERS, Kind.WINDOW_UPDATE):
            return False
        return not (self.kind == Kind.CONTINUATION and length)


class Cutter:
    """Cuts one side's bytes into frames. has_preface: whether the peer begins with that of clients."""

    def __init__(self, *, has_preface: bool) -> None:
        self._buffer = bytearray()
        self._needs_preface = has_preface
        self._has_settings = False
        self._block_bytes = 0
        self._continuations = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Return the frames that are whole now. Raises Broken."""
        self._buffer += data
        if self._needs_preface and not self._take_preface():
            return
        while (frame := self._next()) is not None:
            self._check_order(frame)
            self._check_block(frame)
            yield frame

    def _take_preface(self) -> bool:
        if not PREFACE.startswith(self._buffer[: len(PREFACE)]):
            raise Broken("the connection does not begin as HTTP/2 does")
        if len(self._buffer) < len(PREFACE):
            return False
        del self._buffer[: len(PREFACE)]
        self._needs_preface = False
        return True

    def _next(self) -> Frame | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[:3])
        if length > FRAME_BYTES:
            raise Broken("a frame is longer than 16 KiB", ErrorCodes.FRAME_SIZE_ERROR)
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        raw = bytes(memoryview(self._buffer)[:end])
        del self._buffer[:end]
        return Frame(raw[3], raw[4], int.from_bytes(raw[5:HEADER_BYTES]) & 0x7FFFFFFF, raw)

    def _check_order(self, frame: Frame) -> None:
        if not self._has_settings and (frame.kind != Kind.SETTINGS or frame.flags & _ACK):  # RFC 9113 §3.4
            raise Broken("the connection does not begin with SETTINGS")
        self._has_settings = True
        if frame.kind == Kind.PUSH_PROMISE:
            raise Broken("a push, which nobody allowed")

    def _check_block(self, frame: Frame) -> None:
        """Bound a field section that comes in several frames, before it is put together."""
        if frame.kind == Kind.HEADERS:
            self._block_bytes, self._continuations = len(frame.payload), 0
        elif frame.kind == Kind.CONTINUATION:
            self._block_bytes += len(frame.payload)
            self._continuations += 1
            if self._block_bytes > MAX_HEAD_BYTES or self._continuations > MAX_CONTINUATIONS:
                raise Broken("a field section is too long", ErrorCodes.ENHANCE_YOUR_CALM)


class Flood:
    """A bucket of FLOOD_BURST frames that fills at FLOOD_PER_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(FLOOD_BURST)
        self._since = clock()

    def count(self) -> None:
        """Count one frame. Raises Broken when there were too many."""
        now = self._clock()
        self._left = min(float(FLOOD_BURST), self._left + (now - self._since) * FLOOD_PER_S) - 1
        self._since = now
        if self._left < 0:
            raise Broken("a flood of frames that bring nothing", ErrorCodes.ENHANCE_YOUR_CALM)
