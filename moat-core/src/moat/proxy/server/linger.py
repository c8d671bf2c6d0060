"""Waits for peers that are slow to take what they get: before they are asked for more, and before a connection ends.

A connection is read on for a moment before it is closed (RFC 9112 §9.6): closing on bytes that nobody read resets it,
and what was written last is lost.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from moat.proxy.limits import Limits
from moat.proxy.server.stream import Stream, StreamBroken, within


async def linger(stream: Stream, limits: Limits) -> None:
    """Drop what comes, until the peer ends, or for linger_s or linger_bytes."""
    with suppress(TimeoutError, StreamBroken):
        seen, until = 0, within(limits.linger_s)
        while seen < limits.linger_bytes and await stream.more(until):
            seen += len(stream.buffer)
            stream.buffer.clear()


async def drained(stream: Stream, until: float) -> None:
    """Wait until a peer took most of what it got: who reads no answers gets no more. Raises TimeoutError at until."""
    async with asyncio.timeout_at(until):
        await stream.drain()
