"""The resolver of a run: answers from the policy, never asks anybody. What a name carries cannot leave through it.

    A of a host that the policy lets out    its address in 127.107.0.0/16, TTL 1
    any other type of such a host           NOERROR, empty (no IPv6, no HTTPS records, no surprises)
    anything else                           NXDOMAIN; not a query at all: FORMERR or silence

`answer` is sans-IO; `DatagramResolver` and `serve_stream` put it on the door's sockets.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from moat.net.authority import AuthorityRefused, canonical_host, is_address
from moat.proxy.server.stream import PlainStream, StreamBroken

TTL_S = 1
IDLE_S = 10.0  # RFC 7766 §6.2.3 lets a server choose; stub resolvers ask at once
MAX_QUERY_BYTES = 4096
MAX_QUERIES_A_TURN = 64  # then the loop serves others

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_A, _ANY, _IN = 1, 255, 1
_FORMERR, _NXDOMAIN, _NOTIMP = 1, 3, 4
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE, _AUTHORITATIVE = 0x8000, 0x0100, 0x0080, 0x0400

Lookup = Callable[[str], str | None]


def answer(query: bytes, lookup: Lookup) -> bytes | None:
    """Return the answer to one DNS message, or None for what must not be answered (RFC 1035 §4.1).

    lookup: the IPv4 address for a canonical host, None when the policy does not let it out.
    """
    if len(query) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _RESPONSE:
        return None
    if flags & 0x7800:  # an opcode other than QUERY
        return _reply(number, flags, _NOTIMP)
    parsed = _question(query) if questions == 1 else None
    if parsed is None:
        return _reply(number, flags, _FORMERR)
    host, kind, question = parsed
    address = lookup(host) if host else None
    if address is None:
        return _reply(number, flags, _NXDOMAIN, question)
    if kind not in (_A, _ANY):
        return _reply(number, flags, 0, question)
    record = struct.pack("!3HIH", 0xC00C, _A, _IN, TTL_S, 4) + socket.inet_aton(address)
    return _reply(number, flags, 0, question, record)


class DatagramResolver:
    """Answers on the door's UDP socket. The socket's flags are shared with the gate, so no call relies on them."""

    def __init__(self, sock: socket.socket, lookup: Lookup) -> None:
        self._sock = sock
        self._lookup = lookup
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Stop, and close this process's copy of the socket."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        with suppress(BlockingIOError, InterruptedError, ConnectionError):
            for _ in range(MAX_QUERIES_A_TURN):
                query, peer = self._sock.recvfrom(MAX_QUERY_BYTES, socket.MSG_DONTWAIT)
                reply = answer(query, self._lookup)
                if reply is not None:
                    with suppress(OSError):  # a full buffer drops a datagram, as networks do; the client asks again
                        self._sock.sendto(reply, socket.MSG_DONTWAIT, peer)


async def serve_stream(stream: PlainStream, lookup: Lookup) -> None:
    """Answer the queries of one TCP connection, each after its length (RFC 1035 §4.2.2)."""
    with suppress(TimeoutError, StreamBroken):
        while (query := await _framed(stream)) is not None:
            reply = answer(query, lookup)
            if reply is None:
                break
            stream.write(struct.pack("!H", len(reply)) + reply)
            await stream.drain()
    stream.close()


async def _framed(stream: PlainStream) -> bytes | None:
    async with asyncio.timeout(IDLE_S):
        while len(stream.buffer) < 2 or len(stream.buffer) < 2 + int.from_bytes(stream.buffer[:2], "big"):
            if not await stream.more():
                return None
    end = 2 + int.from_bytes(stream.buffer[:2], "big")
    query = bytes(stream.buffer[2:end])
    del stream.buffer[:end]
    return query


def _reply(number: int, flags: int, code: int, question: bytes = b"", record: bytes = b"") -> bytes:
    ours = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (flags & (_RECURSION_DESIRED | 0x7800)) | code
    return _HEADER.pack(number, ours, bool(question), bool(record), 0, 0) + question + record


def _question(query: bytes) -> tuple[str, int, bytes] | None:
    """Return host ("" for what is no host), type and the question's bytes, or None when it is malformed."""
    labels: list[str] = []
    at = _HEADER.size
    while at < len(query) and query[at]:
        length = query[at]
        if length > 63 or at + length >= len(query):  # a compression pointer has no place in a lone question
            return None
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    at += 1
    if at + _QUESTION.size > len(query):
        return None
    kind, group = _QUESTION.unpack_from(query, at)
    host = _host(labels) if group == _IN else ""
    return host, kind, query[_HEADER.size : at + _QUESTION.size]


def _host(labels: list[str]) -> str:
    if not labels or any("." in label or not label.isascii() for label in labels):
        return ""
    try:
        host = canonical_host(".".join(labels))
    except AuthorityRefused:
        return ""
    return "" if is_address(host) else host
