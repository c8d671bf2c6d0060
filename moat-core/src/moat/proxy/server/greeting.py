"""A client's TLS handshake: its hello is read first and decides between two contexts of the host, one per HTTP version.

    ClientHello ─▶ offers http/1.1, alone or with h2, or nothing ─▶ HTTP/1.1, the fast path
                   offers only h2 ───────────────────────────────▶ HTTP/2

Python's ssl has no callback that would choose while OpenSSL shakes hands; what OpenSSL agreed on counts in the end.
"""

from __future__ import annotations

import ssl

from moat.proxy.hello import HelloReader, is_without_http2
from moat.proxy.http1 import Malformed
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.stream import PlainStream, StreamBroken, within
from moat.proxy.server.tls import TlsStream

_DECODE_ERROR = b"\x15\x03\x03\x00\x02\x02\x32"  # RFC 8446 §6: a fatal alert, which tells the client whose fault it is
_FAILURES = (TimeoutError, StreamBroken, Malformed, ssl.SSLError)


class NoHandshake(Exception):
    """There is no TLS with this client; the text says why."""


async def first_byte(stream: PlainStream, limit_s: float) -> int | None:
    """Return what a tunnel begins with, which stays to be read; None when nothing comes within limit_s."""
    try:
        has_come = stream.buffer or await stream.more(within(limit_s))
    except (TimeoutError, StreamBroken):
        return None
    return stream.buffer[0] if has_come else None


async def greet(stream: PlainStream, leaves: Leaves, host: str, limit_s: float) -> TlsStream:
    """Shake hands as host; return the stream inside. Raises NoHandshake; stream is then the caller's to close."""
    until = within(limit_s)
    try:
        is_for_http2 = not is_without_http2(stream.buffer) and await _is_only_for_http2(stream, until)
        inner = TlsStream(stream, leaves.context(host, http2=is_for_http2))
        await inner.handshake(until)
    except _FAILURES as problem:
        raise _none(stream, problem) from None
    return inner


async def shake_hands(stream: PlainStream, context: ssl.SSLContext, limit_s: float) -> TlsStream:
    """Shake hands with a context that is chosen already. Otherwise like greet."""
    try:
        inner = TlsStream(stream, context)
        await inner.handshake(within(limit_s))
    except _FAILURES as problem:
        raise _none(stream, problem) from None
    return inner


async def _is_only_for_http2(stream: PlainStream, until: float) -> bool:
    reader = HelloReader()
    while (hello := reader.read(stream.buffer)) is None:
        if not await stream.more(until):
            raise StreamBroken("the connection ended in the ClientHello")
    return hello.is_only_for_http2


def _none(stream: PlainStream, problem: Exception) -> NoHandshake:
    """Return why there is no handshake, and tell the client where OpenSSL has not. problem: one of _FAILURES."""
    match problem:
        case Malformed():
            stream.write(_DECODE_ERROR)
            return NoHandshake(f"the client's TLS was not understood ({problem})")
        case ssl.SSLError():
            return NoHandshake(_problem(problem))
        case StreamBroken():
            return NoHandshake("the client broke off the TLS handshake")
        case _:
            return NoHandshake("the client did not finish the TLS handshake")


def _problem(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if "CALLBACK_FAILED" in reason or "CLIENTHELLO_TLSEXT" in reason:
        return "the client's SNI names another host than its connection"
    if "ALERT" in reason:  # a pinned certificate, or a trust store without our CA
        return f"the client rejected our certificate ({reason.lower().replace('_', ' ')})"
    return f"the client's TLS was not understood ({reason.lower().replace('_', ' ') or 'no reason given'})"
