"""Two streams joined: bytes as they come, both ways, after an upgrade. Knows nothing of what the bytes mean.

client ═══ counted ═════════════▶ upstream        either end closes both; so does silence on both, in the end
client ◀══ sifted ═══ counted ════ upstream       sifted where credentials may come back
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from moat.proxy.http1 import Malformed
from moat.proxy.server.stream import Stream, StreamBroken


class Tally(Protocol):
    """Who is told of every byte, so that it is known too when the tunnel is cut."""

    request_bytes: int
    response_bytes: int


class Sieve(Protocol):
    """Changes what the client gets, as it comes."""

    def feed(self, data: bytes) -> bytes:
        """Return what may leave now. Raises Malformed when nothing more may."""
        ...

    def finish(self) -> bytes:
        """Return what was held back, at the end."""
        ...


async def join(client: Stream, upstream: Stream, tally: Tally, *, idle_s: float, sieve: Sieve | None = None) -> str:
    """Pump until one side ends, then close the other; return what cut it short, "" for an end of theirs.

    idle_s: how long both sides may be silent.
    """
    problem = ""
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
                problem = await _pump(upstream, client, received, sieve)
                sending.cancel()
    except TimeoutError:
        client.close()
        upstream.close()
        return f"nothing was said for {idle_s:g} s"
    return problem


async def _pump(source: Stream, target: Stream, passed: Callable[[int], None], sieve: Sieve | None = None) -> str:
    """Pass bytes on until the source ends; return why it could not go on, "" for its end."""
    problem = ""
    try:
        while True:
            if not source.buffer and not await source.more():
                break
            data = bytes(source.buffer)
            source.buffer.clear()
            passed(len(data))
            target.write(data if sieve is None else sieve.feed(data))
            await target.drain()
        if sieve is not None:
            target.write(sieve.finish())
    except StreamBroken:
        pass
    except Malformed as malformed:
        problem = str(malformed)
    target.close()
    return problem
