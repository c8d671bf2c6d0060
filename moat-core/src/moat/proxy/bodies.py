"""Bodies on the wire: readers that take payload out of a buffer, writers that frame it again. No I/O.

reader = reader_for(framing)
while not reader.is_done: payload = reader.take(buffer)      "" means: more bytes are needed, unless it has_more
at the end of the stream: reader.may_end_here says whether that was the body's end or a truncation
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from moat.proxy.http1 import Framing, Malformed, read_fields

MAX_TRAILER_BYTES = 16_384
MAX_CHUNKS = 256  # taken at once, about 1 ms: a buffer of one-byte chunks holds 40,000, and others wait meanwhile

# A recipient ignores extensions that it does not know (RFC 9112 §7.1.1): an upstream's are dropped here, within bounds.
# A client's are refused: none that we know of sends any, and readers that end such a line elsewhere than we do (at a
# bare LF in a quoted value) have let requests be smuggled.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})")
_SIZE_AND_MORE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_MAX_SIZE_LINE = 32
_MAX_STEPS = 3 * MAX_CHUNKS  # each has a size, payload and an end
_MAX_SIZE_AND_MORE_LINE = 1_024
_BEGINNING = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
# Framing, routing and identity cannot be changed after the head (RFC 9110 §6.5.1).
NOT_IN_TRAILERS = frozenset(("content-length", "transfer-encoding", "host", "connection", "trailer", "te", "upgrade",
                         "authorization", "proxy-authorization", "set-cookie", "content-encoding"))  # fmt: skip


class BodyReader(Protocol):
    """Takes one body's payload off the front of a buffer and leaves what follows it.

    has_more: taking again goes on without another byte in the buffer, since what one take does is bounded; it may bring
    nothing. Whoever takes gives the loop a turn before, and waits for no bytes.
    """

    is_done: bool
    may_end_here: bool
    trailers: list[tuple[str, str]]

    @property
    def has_more(self) -> bool:
        """See above."""
        ...

    def take(self, buffer: bytearray) -> bytes:
        """Return the payload that is there now, b"" when more is needed or it has_more. Raises Malformed."""
        ...

    def end(self) -> bytes:
        """Return payload that was kept back, when the stream ends and the reader is not done. Raises Malformed."""
        ...


class BodyWriter(Protocol):
    """Frames payload."""

    def encode(self, payload: bytes) -> bytes:
        """Return payload as it goes on the wire; never called with nothing."""
        ...

    def finish(self, trailers: Iterable[tuple[str, str]]) -> bytes:
        """Return what ends the body."""
        ...


def reader_for(framing: Framing) -> BodyReader:
    """Return a reader of a client's body with this framing."""
    if framing.kind == "chunked":
        return ChunkedReader()
    if framing.kind == "close":
        return CloseReader()
    return LengthReader(framing.length)


def answer_reader(framing: Framing) -> BodyReader:
    """Return a reader of an upstream's body with this framing: what extends its chunks is dropped."""
    return ChunkedReader(_SIZE_AND_MORE, _MAX_SIZE_AND_MORE_LINE) if framing.kind == "chunked" else reader_for(framing)


def writer_for(framing: Framing) -> BodyWriter:
    """Return a writer of a body with this framing; "close" and "length" pass payload as it is."""
    return ChunkedWriter() if framing.kind == "chunked" else PlainWriter()


class LengthReader:
    """A body of a known length, 0 for none."""

    has_more = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_done = length == 0
        self.may_end_here = self.is_done
        self.trailers: list[tuple[str, str]] = []

    def take(self, buffer: bytearray) -> bytes:
        """Return what is there, at most what is left."""
        if len(buffer) <= self._left:
            payload = bytes(buffer)
            buffer.clear()
        else:
            payload = bytes(memoryview(buffer)[: self._left])
            del buffer[: self._left]
        self._left -= len(payload)
        self.is_done = self.may_end_here = self._left == 0
        return payload

    def end(self) -> bytes:
        """Return nothing: nothing is kept back."""
        return b""


class CloseReader:
    """A body that ends with the connection."""

    has_more = False

    def __init__(self) -> None:
        self.is_done = False
        self.may_end_here = True
        self.trailers: list[tuple[str, str]] = []

    def take(self, buffer: bytearray) -> bytes:
        """Return all that is there."""
        payload = bytes(buffer)
        buffer.clear()
        return payload

    def end(self) -> bytes:
        """Return nothing: nothing is kept back."""
        return b""


class ChunkedReader:
    """A chunked body (RFC 9112 §7.1). size_line: what its chunks begin with; extensions only where that has them."""

    def __init__(self, size_line: re.Pattern[bytes] = _SIZE, max_size_line: int = _MAX_SIZE_LINE) -> None:
        self._size_line = size_line
        self._max_size_line = max_size_line
        self._left = 0  # of the current chunk, its closing CR LF not counted
        self._needs_crlf = False
        self._in_trailers = False
        self.has_more = False
        self.is_done = False
        self.may_end_here = False
        self.trailers: list[tuple[str, str]] = []

    def take(self, buffer: bytearray) -> bytes:
        """Return the payload of the chunks that are there, MAX_CHUNKS at most."""
        self.has_more = False
        is_within = self._left or self._needs_crlf or self._in_trailers
        if not is_within and (whole := _whole_chunk(buffer)):
            return whole
        pieces: list[bytes] = []
        for _ in range(_MAX_STEPS):
            if self.is_done or not self._step(buffer, pieces):
                break
        else:
            self.has_more = not self.is_done
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> bytes:
        """Return nothing: nothing is kept back."""
        return b""

    def _step(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        """Read one part of a chunk; False when its bytes are not all there."""
        if self._in_trailers:
            return self._read_trailers(buffer)
        if self._left:
            return self._read_payload(buffer, pieces)
        if self._needs_crlf:
            return self._read_crlf(buffer)
        return self._read_size(buffer)

    def _read_payload(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        if not buffer:
            return False
        piece = bytes(memoryview(buffer)[: self._left])
        del buffer[: len(piece)]
        pieces.append(piece)
        self._left -= len(piece)
        self._needs_crlf = self._left == 0
        return True

    def _read_crlf(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if not buffer.startswith(b"\r\n"):
            raise Malformed("a chunk is longer than it said")
        del buffer[:2]
        self._needs_crlf = False
        return True

    def _read_size(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n", 0, self._max_size_line)
        if end < 0:
            if len(buffer) >= self._max_size_line or b"\n" in buffer:
                raise Malformed("a chunk size is malformed")
            return False
        line = self._size_line.fullmatch(buffer[:end])
        if line is None:
            raise Malformed("a chunk size is malformed")
        del buffer[: end + 2]
        self._left = int(line[1], 16)
        self._in_trailers = self._left == 0
        return True

    def _read_trailers(self, buffer: bytearray) -> bool:
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
        else:
            end = buffer.find(b"\r\n\r\n", 0, MAX_TRAILER_BYTES)
            if end < 0:
                if len(buffer) >= MAX_TRAILER_BYTES:
                    raise Malformed("the trailers are too long")
                return False
            fields = read_fields(buffer[:end].decode("latin-1").split("\r\n"))
            self.trailers = [pair for pair in fields if pair[0].lower() not in NOT_IN_TRAILERS]
            del buffer[: end + 4]
        self.is_done = self.may_end_here = True
        return True


def _whole_chunk(buffer: bytearray) -> bytes:
    """Take one chunk that is all there is, as events mostly come; b"" for anything else. Costs a third of the steps."""
    beginning = _BEGINNING.match(buffer)
    if beginning is None:
        return b""
    start = beginning.end()
    size = int(beginning[1], 16)
    if not size or len(buffer) != start + size + 2 or not buffer.endswith(b"\r\n"):
        return b""
    payload = bytes(buffer[start:-2])
    buffer.clear()
    return payload


class PlainWriter:
    """Payload as it is."""

    def encode(self, payload: bytes) -> bytes:
        """Return payload."""
        return payload

    def finish(self, trailers: Iterable[tuple[str, str]]) -> bytes:
        """Return nothing: the length, or the connection's end, tells."""
        del trailers
        return b""


class ChunkedWriter:
    """One chunk per piece of payload, so that what came at once leaves at once."""

    def encode(self, payload: bytes) -> bytes:
        """Return payload as one chunk."""
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    def finish(self, trailers: Iterable[tuple[str, str]]) -> bytes:
        """Return the last chunk and the trailers."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in trailers])
        return f"0\r\n{lines}\r\n".encode("latin-1")
