from __future__ import annotations

import asyncio

import pytest
from moat.proxy.http2 import CANCEL, PROTOCOL_ERROR, WINDOW_BYTES
from moat.proxy.http2_heads import plain_fields, response_fields
from moat.proxy.server.h2_lane import LaneBroken
from moat.proxy.server.stream import PlainStream

from core.proxy.server.h2_links import everything, two_links
from core.proxy.server.pairs import until


async def test_leaving_resets_the_other_end_and_wakes_whoever_waits() -> None:
    async with two_links() as ends:
        near, far = await ends.ask()
        told: list[str] = []
        far.on_broken = lambda: told.append("broken")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_broken(far.more()))
            stuck = group.create_task(_broken(near.send(bytes(2 * WINDOW_BYTES))))
            await until(lambda: len(far.buffer) == WINDOW_BYTES)
            far.buffer.clear()
            near.leave()
            await until(lambda: bool(told))

        assert (waiting.result() or far.broken) is not None
        assert stuck.result() is not None
        assert far.broken is not None
        assert far.broken.code == CANCEL
        with pytest.raises(LaneBroken):
            far.finish([])
        assert ends.asking.lanes == {}


async def _broken(waiting: object) -> LaneBroken | None:
    try:
        await waiting  # type: ignore[misc]  # a coroutine of either kind
    except LaneBroken as broken:
        return broken
    return None


async def test_what_was_over_on_both_sides_is_left_without_a_word() -> None:
    async with two_links() as ends:
        near, far = await ends.ask(is_over=True)
        told: list[str] = []
        far.on_broken = lambda: told.append("broken")
        far.head(response_fields(204, []), is_over=True)
        await until(lambda: near.has_ended)
        near.leave()
        far.leave()
        again, _ = await ends.ask()

        assert again.number == 3
        assert told == []


async def test_a_body_of_another_length_than_expected_breaks_its_lane_only() -> None:
    async with two_links() as ends:
        near, far = await ends.ask()
        far.expect(3)
        await near.send(b"four")
        await until(lambda: near.broken is not None)
        other, other_far = await ends.ask()
        other_far.expect(4)
        await other.send(b"four")
        other.finish([])

        assert await everything(other_far) == b"four"
        assert far.broken is not None
        assert near.broken is not None
        assert (far.broken.code, near.broken.code) == (PROTOCOL_ERROR, PROTOCOL_ERROR)
        assert far.broken.problem


async def test_malformed_trailers_break_the_lane() -> None:
    async with two_links() as ends:
        near, far = await ends.ask()
        near.head(plain_fields([("connection", "close")]), is_over=True)
        await until(lambda: far.broken is not None)

        assert not far.has_ended


async def test_a_peer_that_does_not_read_stops_whoever_settles() -> None:
    async with two_links() as ends:
        _, far = await ends.ask()
        stream = ends.answering.stream
        assert isinstance(stream, PlainStream)
        stream.pause_writing()
        far.head(response_fields(204, []), is_over=True)
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(far.settle())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not settling.done()
            stream.resume_writing()
