"""Removes the credentials of a run from bodies of messages, each after its length: gRPC, gRPC-Web, Connect. Sans-IO.

    flags (1 byte) · length (4 bytes) · message ─▶ each message one body ─▶ the same, or without compression

A message is over when its length says so: nothing of it waits for the next, which may come only once this one was
answered. One that is compressed (github.com/grpc/grpc, PROTOCOL-HTTP2; connectrpc.com, Protocol) is held, decoded and
searched; it leaves as it came, or, if a credential was in it, uncompressed, as any message may. What a client offers to
take compressed was taken out of its request (`answering`), so few are.
"""

from __future__ import annotations

from collections.abc import Callable

from moat.api.http import Headers
from moat.proxy.decode import decoder_for
from moat.proxy.http1 import Malformed
from moat.proxy.scrub import Scrub, ScrubbedStream

MAX_PACKED_BYTES = 4_194_304  # of one compressed message, before and after: what gRPC's clients take, if not told
# How clients say which compression of messages they take: gRPC, and Connect's streams.
OFFERS = ("grpc-accept-encoding", "connect-accept-encoding")
_HEAD_BYTES = 5
_COMPRESSED = 0x01
_KINDS = {
    "application/grpc": "grpc-encoding",
    "application/grpc-web": "grpc-encoding",
    "application/connect": "connect-content-encoding",
}


class ScrubbedMessages:
    """One body. coding: of its compressed messages, "" for none. scrub: what to look for now. found: see Scrub."""

    def __init__(self, coding: str, scrub: Callable[[], Scrub], found: Callable[[int], None]) -> None:
        self._coding = coding
        self._scrub = scrub
        self._found = found
        self._head = b""
        self._left = 0  # of the current message
        self._message: ScrubbedStream | None = None
        self._packed: bytearray | None = None  # a compressed message, while it is not all there

    def feed(self, data: bytes) -> bytes:
        """Return what may leave now. Raises Malformed for a compressed message that cannot be read."""
        out, at = bytearray(), 0
        while at < len(data):
            piece = data[at : at + (self._left or _HEAD_BYTES - len(self._head))]
            at += len(piece)
            if self._left:
                self._left -= len(piece)
                out += self._taken(piece)
            else:
                self._head += piece
                out += self._begun() if len(self._head) == _HEAD_BYTES else b""
        return bytes(out)

    def finish(self) -> bytes:
        """Return what was held back, at the body's end. Raises Malformed for half of a compressed message."""
        if self._packed is not None:
            raise Malformed("a compressed message breaks off")
        head, self._head = self._head, b""
        return head + (self._message.finish() if self._message is not None else b"")

    def _begun(self) -> bytes:
        head, self._left = self._head, int.from_bytes(self._head[1:])
        if self._coding and head[0] & _COMPRESSED:
            if self._left > MAX_PACKED_BYTES:
                raise Malformed("a compressed message is too long to be searched")
            self._packed = bytearray()
            return b"" if self._left else self._taken(b"")
        self._head = b""
        self._message = self._scrub().stream(self._found) if self._left else None
        return head

    def _taken(self, piece: bytes) -> bytes:
        """Take a piece of a message; with its last, see to its end."""
        if self._packed is not None:
            self._packed += piece
            return b"" if self._left else self._unpacked()
        if self._message is None:
            return b""
        self._message.look_for(self._scrub())
        out = self._message.feed(piece)
        if not self._left:
            out, self._message = out + self._message.finish(), None
        return out

    def _unpacked(self) -> bytes:
        """Return a compressed message as it came, or without compression where a credential was in it."""
        head, packed, self._head, self._packed = self._head, bytes(self._packed or b""), b"", None
        plain, scrub = _decoded(self._coding, packed), self._scrub()
        if not (count := scrub.count(plain)):
            return head + packed
        self._found(count)
        return bytes((head[0] & ~_COMPRESSED,)) + len(plain).to_bytes(4) + scrub.whole(plain)


def has_envelopes(headers: Headers) -> bool:
    """Whether a body is made of such messages."""
    return _kind(headers) in _KINDS


def message_coding(headers: Headers) -> str:
    """Return what such a body's compressed messages are compressed with, lower case; "" for nothing."""
    name = _KINDS.get(_kind(headers))
    coding = (headers.get(name) or "").strip().lower() if name else ""
    return "" if coding == "identity" else coding


def _kind(headers: Headers) -> str:
    """Return the media type without its parameters and the format of its messages."""
    return (headers.get("content-type") or "").partition(";")[0].partition("+")[0].strip().lower()


def _decoded(coding: str, packed: bytes) -> bytes:
    decoder = decoder_for(coding)
    if decoder is None:
        raise Malformed("a message is compressed in a way that is not known")
    plain = bytearray(decoder.feed(packed))
    while decoder.has_more:
        plain += decoder.feed(b"")
        if len(plain) > MAX_PACKED_BYTES:
            raise Malformed("a compressed message is too long to be searched")
    decoder.finish()
    return bytes(plain)
