"""Two streams joined: bytes as they come, both ways, after an upgrade. Knows nothing of what the bytes mean.

client ═══ counted ═══▶ upstream        either end closes both; so does silence on both, in the end
client ◀══ counted ════ upstream
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from moat.proxy.server.stream import Stream, StreamBroken


class Tally(Protocol):
    """Who is told of every byte, so that it is known too when the tunnel is cut."""

    request_bytes: int
    response_bytes: int


async def join(client: Stream, upstream: Stream, tally: Tally, *, idle_s: float) -> str:
    """Pump until one side ends, then close the other; return what cut it short, "" for an end of theirs.

    idle_s: how long both sides may be silent.
    """
    try:
        async with asyncio.timeout(idle_s) as silence:
            clock = asyncio.get_running_loop().time

            def sent(count: int) -> None:
                tally.request_bytes += count
                silence.reschedule(clock() + idle_s)

            def received(count: int) -> None:
                tally.response_bytes += count
                silence.reschedule(clock() + idle_s)

            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_pump(client, upstream, sent))
                await _pump(upstream, client, received)
                sending.cancel()
    except TimeoutError:
        client.close()
        upstream.close()
        return f"nothing was said for {idle_s:g} s"
    return ""


async def _pump(source: Stream, target: Stream, passed: Callable[[int], None]) -> None:
    try:
        while True:
            if not source.buffer and not await source.more():
                break
            data = bytes(source.buffer)
            source.buffer.clear()
            passed(len(data))
            target.write(data)
            await target.drain()
    except StreamBroken:
        pass
    target.close()
