from __future__ import annotations

import asyncio

from moat.proxy.limits import Limits
from moat.proxy.server.linger import linger

from core.proxy.server.pairs import plain_pair

LONG_S = 60.0


async def test_it_ends_with_the_peer() -> None:
    ours, theirs = await plain_pair()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(linger(ours, Limits(linger_s=LONG_S)))
        theirs.write(bytes(100_000))
        theirs.end()
    ours.abort()
    theirs.abort()


async def test_it_ends_with_so_many_bytes_or_so_much_time() -> None:
    ours, theirs = await plain_pair()
    theirs.write(bytes(100_000))
    async with asyncio.timeout(30):
        await linger(ours, Limits(linger_s=LONG_S, linger_bytes=1))
        await linger(ours, Limits(linger_s=0.01))
    ours.abort()
    theirs.abort()


async def test_a_peer_that_is_gone_is_no_error() -> None:
    ours, theirs = await plain_pair()
    theirs.abort()
    async with asyncio.timeout(30):
        await linger(ours, Limits(linger_s=LONG_S))
    ours.abort()
