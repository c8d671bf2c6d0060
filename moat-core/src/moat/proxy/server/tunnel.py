"""Two streams joined: bytes as they come, both ways, after an upgrade. Knows nothing of what the bytes mean.

client ═══ counted ═════════════▶ upstream        one side's end is passed on, and the other may go on speaking;
client ◀══ sifted ═══ counted ════ upstream       both ends, a reset or silence end it

Sifted is what may bring credentials back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from moat.proxy.http1 import Malformed
from moat.proxy.server.stream import Stream, StreamBroken

SIEVE_BYTES = 8_192  # sifted at once: as many frames as a peer packs into them, each of which costs some microseconds


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


async def join(
    client: Stream, upstream: Stream, tally: Tally, *, idle_s: float, half_idle_s: float, sieve: Sieve | None = None
) -> str:
    """Pump until both sides have ended, then close both; return what cut it short, "" for ends of theirs.

    idle_s: how long both sides may be silent; half_idle_s: how long the one that is left, once the other has ended.
    """
    clock, limit_s, problem = asyncio.get_running_loop().time, idle_s, ""
    try:
        async with asyncio.timeout(idle_s) as silence:

            def sent(count: int) -> None:
                tally.request_bytes += count
                silence.reschedule(clock() + limit_s)

            def received(count: int) -> None:
                tally.response_bytes += count
                silence.reschedule(clock() + limit_s)

            def ended() -> None:
                nonlocal limit_s
                limit_s = min(idle_s, half_idle_s)
                silence.reschedule(clock() + limit_s)

            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(client, upstream, sent, ended))
                group.create_task(_pump(upstream, client, received, ended, sieve))
    except* TimeoutError:
        problem = f"nothing was said for {limit_s:g} s"
    except* StreamBroken:
        pass
    except* Malformed as malformed:
        problem = str(malformed.exceptions[0])
    client.close()
    upstream.close()
    return problem


async def _pump(
    source: Stream, target: Stream, passed: Callable[[int], None], ended: Callable[[], None], sieve: Sieve | None = None
) -> None:
    """Pass bytes on until the source ends, and then its end. Raises StreamBroken, and Malformed of the sieve."""
    while source.buffer or await source.more():
        data = bytes(source.buffer if sieve is None else memoryview(source.buffer)[:SIEVE_BYTES])
        del source.buffer[: len(data)]
        passed(len(data))
        target.write(data if sieve is None else sieve.feed(data))
        await target.drain()
        if source.buffer:
            await asyncio.sleep(0)
    if sieve is not None:
        target.write(sieve.finish())
    target.end()
    ended()
