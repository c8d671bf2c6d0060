from __future__ import annotations

import asyncio

import pytest
from moat.proxy.server.stream import HIGH_BYTES, PlainStream, StreamBroken

from core.proxy.server.pairs import plain_pair, until


async def test_bytes_stand_in_the_buffer_until_they_are_cut_off() -> None:
    ours, theirs = await plain_pair()
    theirs.write(b"hello")

    assert await ours.more()
    assert ours.buffer == b"hello"
    theirs.close()
    assert not await ours.more()
    assert ours.is_over
    ours.close()


async def test_reading_pauses_at_the_bound_and_goes_on_with_the_next_more() -> None:
    ours, theirs = await plain_pair()
    theirs.write(b"x" * (4 * HIGH_BYTES))
    await until(lambda: len(ours.buffer) >= HIGH_BYTES)
    await asyncio.sleep(0)

    assert len(ours.buffer) < 2 * HIGH_BYTES
    taken = 0
    while taken < 4 * HIGH_BYTES:
        taken += len(ours.buffer)
        ours.buffer.clear()
        if taken < 4 * HIGH_BYTES:
            assert await ours.more()
    ours.close()
    theirs.close()


async def test_drain_waits_for_a_slow_reader_and_fails_when_it_is_gone() -> None:
    ours, theirs = await plain_pair()
    ours.write(b"x" * (8 * HIGH_BYTES))
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(_drain(ours))
        await asyncio.sleep(0)
        assert not draining.done()
        theirs.abort()

    assert draining.result() == "broken"


async def test_going_away_is_told_once_even_while_nobody_reads() -> None:
    ours, theirs = await plain_pair()
    calls: list[str] = []
    ours.on_gone(lambda: calls.append("gone"))
    theirs.close()
    await until(lambda: ours.is_over)
    ours.on_gone(lambda: calls.append("already gone"))

    assert calls == ["gone", "already gone"]
    ours.close()


async def test_writing_to_a_lost_connection_is_swallowed() -> None:
    ours, theirs = await plain_pair()
    ours.abort()
    theirs.close()
    await until(lambda: ours.is_over)

    ours.write(b"late")


async def test_an_unconnected_stream_has_no_transport() -> None:
    with pytest.raises(StreamBroken):
        _ = PlainStream().transport


async def _drain(stream: PlainStream) -> str:
    try:
        await stream.drain()
    except StreamBroken:
        return "broken"
    return "drained"
