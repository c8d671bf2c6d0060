"""HTTP/1.1 read as narrowly as its grammar allows (RFC 9112), by code that shares nothing with moat's own reader.

    requests(data)  ─▶ Read(messages, rest, problem)         what a server would take data for
    answers(data, methods)                                    what a client would, after requests with these methods

A message that breaks off is not whole; `problem` says why nothing after it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
VISIBLE = frozenset(range(0x21, 0x7F))
TEXT = VISIBLE | frozenset(range(0x80, 0x100)) | frozenset(b" \t")
HEX = frozenset(b"0123456789abcdefABCDEF")


class Bad(Exception):
    """The bytes are no message."""


class Short(Exception):
    """The bytes end before the message does."""


@dataclass
class Message:
    """One message. first: its line, in three parts. fields and trailers: lower-case names, values as they stand."""

    first: tuple[bytes, bytes, bytes]
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_whole: bool = False
    ends_with_connection: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a field."""
        return [value for known, value in self.fields if known == name]


@dataclass
class Read:
    """All that data held. rest: what stands after the last whole message. problem: "" where nothing was wrong."""

    messages: list[Message]
    rest: bytes = b""
    problem: str = ""

    @property
    def whole(self) -> list[Message]:
        """Return the messages that came to their end."""
        return [message for message in self.messages if message.is_whole]


def requests(data: bytes, *, bare: bool = False) -> Read:
    """Read requests one after the other. bare: no empty line may stand before one (a proxy sends none)."""
    found = Read([])
    while data:
        if not bare:
            while data.startswith(b"\r\n"):
                data = data[2:]
        try:
            data = _request(found, data)[1]
        except Short:
            break
        except Bad as bad:
            found.problem = str(bad)
            break
    found.rest = data
    return found


def answers(data: bytes, methods: Sequence[bytes], *, ended: bool) -> Read:
    """Read the answers to requests with these methods. ended: data is all that came before the connection ended."""
    found, asked = Read([]), list(methods)
    while data:
        try:
            message, data = _answer(found, data, asked[0] if asked else b"GET", ended=ended)
        except Short:
            break
        except Bad as bad:
            found.problem = str(bad)
            break
        if message.first[1] == b"101":
            break  # what follows is no HTTP
        if not message.first[1].startswith(b"1"):
            asked = asked[1:]
    found.rest = data
    return found


def _request(found: Read, data: bytes) -> tuple[Message, bytes]:
    first, fields, rest = _head(data)
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[0] or not TOKEN.issuperset(parts[0]):
        raise Bad("no request line")
    if not parts[1] or not VISIBLE.issuperset(parts[1]) or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Bad("no request line")
    message = Message((parts[0], parts[1], parts[2]), fields)
    hosts = message.all(b"host")
    if len(hosts) > 1 or (parts[2] == b"HTTP/1.1" and (not hosts or not hosts[0])):
        raise Bad("not one Host")
    kind = _framing(message)
    if kind == "chunked" and parts[2] == b"HTTP/1.0":
        raise Bad("chunks in HTTP/1.0")
    found.messages.append(message)
    return message, _body(message, rest, kind or "0")


def _answer(found: Read, data: bytes, method: bytes, *, ended: bool) -> tuple[Message, bytes]:
    first, fields, rest = _head(data)
    version, _, said = first.partition(b" ")
    code, blank, reason = said[:3], said[3:4], said[4:]
    if version != b"HTTP/1.1" or blank not in (b"", b" ") or not TEXT.issuperset(reason):
        raise Bad("no status line")
    if len(code) != 3 or not code.isdigit() or not 100 <= int(code) <= 599:
        raise Bad("no status")
    message = Message((version, code, reason), fields)
    kind = _framing(message)
    if kind and (code.startswith(b"1") or code == b"204"):
        raise Bad("a length where there is no body")  # RFC 9110 §8.6, RFC 9112 §6.1
    found.messages.append(message)
    if method == b"HEAD" or code.startswith(b"1") or code in (b"204", b"304"):
        message.is_whole = True
        return message, rest
    if kind or (method == b"CONNECT" and code == b"200"):
        return message, _body(message, rest, kind or "0")
    if b"close" not in [value.lower() for value in message.all(b"connection")]:
        raise Bad("an answer without an end on a connection that goes on")
    message.body, message.is_whole, message.ends_with_connection = rest, ended, True
    return message, b""


def _head(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if any(byte == 10 and data[at - 1 : at] != b"\r" for at, byte in enumerate(data)):
            raise Bad("a bare line feed")
        raise Short
    first, *lines = data[:end].split(b"\r\n")
    return first, _fields(lines), data[end + 4 :]


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not TOKEN.issuperset(name) or not TEXT.issuperset(value):
            raise Bad("no header field")
        found.append((name.lower(), value.strip(b" \t")))
    return found


def _framing(message: Message) -> str:
    """Return "chunked", a length in digits, or "" where nothing is said."""
    codings, lengths = message.all(b"transfer-encoding"), message.all(b"content-length")
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Bad("a body with two ends")
        return "chunked"
    if not lengths:
        return ""
    if len(lengths) > 1 or not lengths[0] or not frozenset(b"0123456789").issuperset(lengths[0]):
        raise Bad("a length that is none")
    return lengths[0].decode()


def _body(message: Message, data: bytes, kind: str) -> bytes:
    """Fill message's body in; return what follows."""
    if kind == "chunked":
        while size := _size(data):
            rest = data.partition(b"\r\n")[2]
            message.body += rest[:size]
            if len(rest) < size + 2:
                raise Short
            if rest[size : size + 2] != b"\r\n":
                raise Bad("a chunk of another length")
            data = rest[size + 2 :]
        return _trailers(message, data.partition(b"\r\n")[2])
    message.body = data[: int(kind)]
    if len(message.body) < int(kind):
        raise Short
    message.is_whole = True
    return data[int(kind) :]


def _size(data: bytes) -> int:
    """Return the size that a chunk begins with, 0 for the last."""
    line, end, _ = data.partition(b"\r\n")
    line = line if end else line.removesuffix(b"\r")
    if not HEX.issuperset(line) or (end and not line) or len(line) > 16:
        raise Bad("no chunk size")
    if not end:
        raise Short
    return int(line, 16)


def _trailers(message: Message, data: bytes) -> bytes:
    if data.startswith(b"\r\n"):
        message.is_whole = True
        return data[2:]
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise Short
    message.trailers = _fields(data[:end].split(b"\r\n"))
    message.is_whole = True
    return data[end + 4 :]
