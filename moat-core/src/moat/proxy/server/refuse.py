"""What a client of HTTP/1.1 is answered that is refused, and whether its connection goes on."""

from __future__ import annotations

from contextlib import suppress

from moat.proxy.http1 import Request
from moat.proxy.limits import Limits
from moat.proxy.refusal import Refusal
from moat.proxy.server.stream import Stream, StreamBroken, within


def keeps(refusal: Refusal, request: Request) -> bool:
    """Whether the connection goes on after a refusal: never with an unread body on it (RFC 9112 §9.3)."""
    return refusal.keeps and request.keeps_alive and request.framing.kind == "none"


async def refuse(stream: Stream, refusal: Refusal, limits: Limits, request: Request | None = None) -> None:
    """Write a refusal. request: None where it could not be read."""
    refusal.keeps = is_kept = request is not None and keeps(refusal, request)
    stream.write(refusal.render("GET" if request is None else request.method))
    if not is_kept and (request is None or request.framing.kind != "none"):
        await linger(stream, limits)


async def linger(stream: Stream, limits: Limits) -> None:
    """Read on for a moment: closing on unread bytes resets the connection and loses the answer (RFC 9112 §9.6)."""
    with suppress(TimeoutError, StreamBroken):
        seen, until = 0, within(limits.linger_s)
        while seen < limits.linger_bytes and await stream.more(until):
            seen += len(stream.buffer)
            stream.buffer.clear()
