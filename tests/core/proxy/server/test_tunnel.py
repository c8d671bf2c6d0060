from __future__ import annotations

import asyncio

from moat.proxy.server.tunnel import join

from core.proxy.server.pairs import plain_pair


async def test_bytes_pass_both_ways_and_are_counted() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    client.write(b"hello")
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled))
        assert await upstream.more()
        upstream.write(b"good day")
        assert await client.more()
        upstream.close()
        assert not await client.more()

    assert (bytes(upstream.buffer), bytes(client.buffer)) == (b"hello", b"good day")
    assert joined.result() == (5, 8)
    client.close()
    dialled.close()


async def test_the_clients_end_closes_the_upstream() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(join(door, dialled))
        client.close()
        assert not await upstream.more()
    upstream.close()
