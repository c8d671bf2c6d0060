"""A TLS ClientHello, read before the handshake begins: whom it names and which protocols it offers. No I/O.

    reader = HelloReader()
    while (hello := reader.read(buffer)) is None: …more bytes…        the buffer is left as it is, for the handshake

OpenSSL reads the same bytes again, and what it makes of them counts: nothing is allowed because of what stands here.
A hello may come in many records and packets (RFC 8446 §5.1); it is read once, and its length is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from moat.proxy.http1 import Malformed

MAX_HELLO_BYTES = 65_536  # with post-quantum key shares and everything else, clients stay below 4 KiB

_HANDSHAKE, _CLIENT_HELLO = 22, 1  # RFC 8446 §5.1, §4
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_HEADERS = struct.Struct("!BxxHxBH")  # both: kind and length of the record, and the message's length in two parts
_MAX_FRAGMENT = 16_384
_SERVER_NAME, _HOST_NAME, _ALPN = 0, 0, 16  # RFC 6066 §3, RFC 7301 §3.1


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client said. server_name: as spelled, "" for none. protocols: by preference, () for no ALPN."""

    server_name: str = ""
    protocols: tuple[str, ...] = ()

    @property
    def is_only_for_http2(self) -> bool:
        """Whether HTTP/2 is the only version that the client would speak."""
        return "h2" in self.protocols and "http/1.1" not in self.protocols


def is_without_http2(buffer: bytearray) -> bool:
    """Whether buffer plainly holds a whole hello that never says `h2`: most do, and need not be read at all."""
    if len(buffer) < _HEADERS.size:
        return False
    kind, record, high, low = _HEADERS.unpack_from(buffer)
    is_whole = record == (high << 16 | low) + _MESSAGE_HEADER and len(buffer) >= _RECORD_HEADER + record
    return kind == _HANDSHAKE and is_whole and buffer.find(b"\x02h2") < 0  # `in` would raise inside, for bytes in these


class HelloReader:
    """Reads one ClientHello as its bytes come in; none of them is looked at twice."""

    def __init__(self) -> None:
        self._at = 0
        self._message = bytearray()

    def read(self, buffer: bytearray) -> Hello | None:
        """Return the hello that buffer begins with, None while it is not all there. Raises Malformed."""
        while self._take_record(buffer):
            if (hello := self._whole()) is not None:
                return hello
        if len(buffer) > MAX_HELLO_BYTES:
            raise Malformed("the ClientHello is too long")
        return None

    def _take_record(self, buffer: bytearray) -> bool:
        """Take the next record's fragment; False while it is not all there."""
        start = self._at + _RECORD_HEADER
        if len(buffer) < start:
            return False
        kind, major, length = buffer[self._at], buffer[self._at + 1], int.from_bytes(buffer[start - 2 : start])
        if kind != _HANDSHAKE or major != 3 or not 0 < length <= _MAX_FRAGMENT:
            raise Malformed("a TLS record that holds no ClientHello")
        if len(buffer) < start + length:
            return False
        self._message += memoryview(buffer)[start : start + length]
        self._at = start + length
        return True

    def _whole(self) -> Hello | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise Malformed("the TLS handshake does not begin with a ClientHello")
        if len(message) < _MESSAGE_HEADER:
            return None
        length = int.from_bytes(message[1:_MESSAGE_HEADER])
        if length > MAX_HELLO_BYTES:
            raise Malformed("the ClientHello is too long")
        if len(message) < _MESSAGE_HEADER + length:
            return None
        return _hello(bytes(message[_MESSAGE_HEADER : _MESSAGE_HEADER + length]))


class _Fields:
    """Cuts fields off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise Malformed("a ClientHello that breaks off")
        piece, self._at = self._data[self._at : end], end
        return piece

    def vector(self, width: int) -> bytes:
        """Take what a length of width bytes announces."""
        return self.take(int.from_bytes(self.take(width)))


def _hello(body: bytes) -> Hello:
    fields = _Fields(body)
    fields.take(2 + 32)  # version and random
    fields.vector(1)  # session
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression
    extensions = _extensions(fields.vector(2)) if fields else {}
    if fields:
        raise Malformed("something follows the ClientHello's extensions")
    return Hello(_server_name(extensions.get(_SERVER_NAME)), _protocols(extensions.get(_ALPN)))


def _extensions(data: bytes) -> dict[int, bytes]:
    fields, found = _Fields(data), {}
    while fields:
        kind = int.from_bytes(fields.take(2))
        if kind in found:
            raise Malformed("a ClientHello has an extension twice")  # RFC 8446 §4.2
        found[kind] = fields.vector(2)
    return found


def _server_name(data: bytes | None) -> str:
    if data is None:
        return ""
    outer = _Fields(data)
    names = _Fields(outer.vector(2))
    kind, name = names.take(1)[0], names.vector(2)
    if outer or names or kind != _HOST_NAME or not name or not name.isascii():
        raise Malformed("a ClientHello names its server in a way of its own")
    return name.decode("ascii")


def _protocols(data: bytes | None) -> tuple[str, ...]:
    if data is None:
        return ()
    outer = _Fields(data)
    names, found = _Fields(outer.vector(2)), []
    while names:
        found.append(names.vector(1).decode("latin-1"))
    if outer or not found or "" in found:
        raise Malformed("a ClientHello offers its protocols in a way of its own")
    return tuple(found)
