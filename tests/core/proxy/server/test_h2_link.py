"""Two links, one at each end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.http2 import CANCEL, PROTOCOL_ERROR, WINDOW_BYTES, Head, Http2
from moat.proxy.http2_heads import plain_fields, response_fields
from moat.proxy.server.h2_link import Lane, LaneBroken, Link
from moat.proxy.server.stream import PlainStream, Stream

from core.proxy.server.pairs import plain_pair, until


class Sink:
    """As much of a stream as a link needs that only takes in."""

    def write(self, data: bytes) -> None:
        del data


REQUEST = plain_fields([(":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/")])


@dataclass
class Ends:
    """A link that asks and one that answers. taken: what the latter was asked."""

    asking: Link
    answering: Link
    taken: list[tuple[Lane, Head]] = field(default_factory=list)

    async def ask(self, *, is_over: bool = False) -> tuple[Lane, Lane]:
        """Return the two ends of a new stream."""
        near = self.asking.open(REQUEST, is_over=is_over)
        await until(lambda: bool(self.taken) and self.taken[-1][0].number == near.number)
        return near, self.taken[-1][0]


@contextlib.asynccontextmanager
async def two_links() -> AsyncIterator[Ends]:
    client, server = await plain_pair()
    ends: Ends
    answering = Link(server, Http2(is_client=False), lambda lane, head: ends.taken.append((lane, head)))
    ends = Ends(Link(client, Http2(is_client=True)), answering)
    async with asyncio.TaskGroup() as group:
        for link in (ends.asking, ends.answering):
            group.create_task(link.run())
        try:
            yield ends
        finally:
            client.abort()
            server.abort()


async def everything(lane: Lane) -> bytes:
    body = b""
    while not lane.body.is_done:
        if payload := lane.body.take(lane.buffer):
            body += payload
        else:
            await lane.more()
    return body


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
