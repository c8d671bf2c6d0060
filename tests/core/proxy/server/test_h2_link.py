from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.http2 import WINDOW_BYTES, Http2
from moat.proxy.http2_heads import plain_fields, response_fields
from moat.proxy.server.h2_lane import Lane, LaneBroken
from moat.proxy.server.h2_link import Link
from moat.proxy.server.stream import Stream

from core.proxy.server.h2_links import REQUEST, everything, two_links
from core.proxy.server.pairs import until


class Sink:
    """As much of a stream as a link needs that only takes in."""

    def write(self, data: bytes) -> None:
        del data


async def test_bodies_larger_than_every_window_cross_both_ways_at_once() -> None:
    up, down = b"u" * 1_000_000, b"d" * 2_000_000

    async def answer(lane: Lane) -> bytes:
        lane.head(response_fields(200, []))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(everything(lane))
            await lane.send(down)
        lane.finish([("x-sum", "1")])
        return reading.result()

    async with two_links() as ends:
        near, far = await ends.ask()
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(answer(far))
            reading = group.create_task(everything(near))
            await near.send(up)
            near.finish([])

    assert (answering.result(), reading.result()) == (up, down)
    assert near.body.trailers == [("x-sum", "1")]
    assert near.heads[0].pairs == ((b":status", b"200"),)


async def test_what_is_not_taken_stops_at_the_window_and_other_lanes_go_on() -> None:
    async with two_links() as ends:
        near, far = await ends.ask()
        other, other_far = await ends.ask()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(near.send(bytes(WINDOW_BYTES + 1)))
            await until(lambda: len(far.buffer) == WINDOW_BYTES)
            await other.send(b"past it")
            await until(lambda: bytes(other_far.buffer) == b"past it")
            assert not sending.done()
            far.body.take(far.buffer)
            await sending


async def test_the_end_of_the_connection_breaks_every_lane() -> None:
    async with two_links() as ends:
        near, far = await ends.ask()
        ends.asking.stream.abort()
        await until(lambda: far.broken is not None)

        assert far.broken is not None
        assert far.broken.code is None
        assert near.broken is not None
        with pytest.raises(LaneBroken):
            await near.send(b"x")


@given(st.lists(st.integers(1, 5_000), max_size=20))
def test_however_a_connection_is_cut_into_reads_the_lane_holds_the_same(sizes: list[int]) -> None:
    client = Http2(is_client=True)
    number = client.open(REQUEST, is_over=False)
    client.data(number, bytes(range(256)) * 60)
    client.head(number, plain_fields([("x-sum", "1")]), is_over=True)
    data = client.outgoing()
    taken: list[Lane] = []
    link = Link(cast("Stream", Sink()), Http2(is_client=False), lambda lane, head: taken.append(lane))
    for size in (*sizes, len(data)):
        for event in link.wire.receive(data[:size]):
            link._dispatch(event)
        data = data[size:]

    assert bytes(taken[0].buffer) == bytes(range(256)) * 60
    assert taken[0].body.trailers == [("x-sum", "1")]
    assert taken[0].has_ended
