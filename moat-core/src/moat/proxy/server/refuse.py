"""What a client of HTTP/1.1 is answered that is refused, and whether its connection goes on."""

from __future__ import annotations

import asyncio

from moat.proxy.http1 import Request
from moat.proxy.limits import Limits
from moat.proxy.refusal import Refusal
from moat.proxy.server.linger import linger
from moat.proxy.server.stream import Stream


def keeps(refusal: Refusal, request: Request) -> bool:
    """Whether the connection goes on after a refusal: never with an unread body on it (RFC 9112 §9.3)."""
    return refusal.keeps and request.keeps_alive and request.framing.kind == "none"


async def refuse(stream: Stream, refusal: Refusal, limits: Limits, request: Request | None = None) -> None:
    """Write a refusal. request: None where it could not be read."""
    refusal.keeps = is_kept = request is not None and keeps(refusal, request)
    stream.write(refusal.render("GET" if request is None else request.method))
    if not is_kept and (request is None or request.framing.kind != "none"):
        await linger(stream, limits)
    elif stream.buffer:
        await asyncio.sleep(0)  # the next request is there: thousands that are refused take no one's turn
