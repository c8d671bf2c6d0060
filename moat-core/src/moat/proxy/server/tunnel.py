"""Two streams joined: bytes as they come, both ways, after an upgrade. Knows nothing of what the bytes mean."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from moat.proxy.server.stream import Stream, StreamBroken


@dataclass(slots=True)
class Count:
    """Bytes that went one way; also what is known when the tunnel is cancelled."""

    total: int = 0


async def join(client: Stream, upstream: Stream) -> tuple[int, int]:
    """Pump until one side ends, then close the other; return the bytes up and down."""
    up, down = Count(), Count()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(_pump(client, upstream, up))
        await _pump(upstream, client, down)
        sending.cancel()
    return up.total, down.total


async def _pump(source: Stream, target: Stream, count: Count) -> None:
    try:
        while True:
            if not source.buffer and not await source.more():
                break
            data = bytes(source.buffer)
            source.buffer.clear()
            count.total += len(data)
            target.write(data)
            await target.drain()
    except StreamBroken:
        pass
    target.close()
