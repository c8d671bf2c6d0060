from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from moat.proxy.bodies import MAX_CHUNKS, reader_for, writer_for
from moat.proxy.http1 import CHUNKED, UNTIL_CLOSE, Framing, Malformed
from moat.proxy.record import Trail
from moat.proxy.server.pump import Pump
from moat.proxy.server.stream import HIGH_BYTES, PlainStream

from core.proxy.server.pairs import plain_pair, turns_during, until

HEAD = b"head;"


@dataclass
class Stage:
    """A pump under way, and the far end of each of its sides."""

    client: PlainStream
    upstream: PlainStream
    trail: Trail
    running: asyncio.Task[bytes | Malformed]

    async def ended(self) -> bytes | Malformed:
        async with asyncio.timeout(30):
            return await self.running


@asynccontextmanager
async def pumping(framing: Framing) -> AsyncIterator[Stage]:
    client, ours = await plain_pair()
    dialled, upstream = await plain_pair()
    trail = Trail(lambda _: None, "run_1", "connect")
    pump = Pump(ours, dialled, reader_for(framing), writer_for(framing), trail)

    async def run() -> bytes | Malformed:
        try:
            return await pump.run(HEAD)
        except Malformed as problem:
            return problem

    async with asyncio.TaskGroup() as group:
        try:
            yield Stage(client, upstream, trail, group.create_task(run()))
        finally:
            for stream in (client, ours, dialled, upstream):
                stream.abort()
    assert dialled.sink is None


async def test_what_comes_goes_on_at_once_and_the_last_bytes_are_left_to_the_caller() -> None:
    async with pumping(CHUNKED) as stage:
        await until(lambda: stage.client.buffer == HEAD)
        stage.upstream.write(b"2\r\nev\r\n")
        await until(lambda: stage.client.buffer == HEAD + b"2\r\nev\r\n")
        stage.upstream.write(b"2\r\nev\r\n")
        await until(lambda: stage.client.buffer == HEAD + b"2\r\nev\r\n" * 2)
        stage.upstream.write(b"4\r\nlast\r\n0\r\n\r\n")

        assert await stage.ended() == b"4\r\nlast\r\n"
    assert stage.trail.response_bytes == len(b"evevlast")


async def test_a_body_far_longer_than_what_is_held_goes_through_whole() -> None:
    size = 8 * HIGH_BYTES
    async with pumping(Framing("length", size + 1)) as stage:
        stage.upstream.write(bytes(size))
        received = 0
        async with asyncio.timeout(30):
            while received < size + len(HEAD) and await stage.client.more():
                received += len(stage.client.buffer)
                stage.client.buffer.clear()
        stage.upstream.write(b"!")

        assert await stage.ended() == b"!"


async def test_a_client_that_does_not_read_has_the_upstream_wait() -> None:
    async with pumping(UNTIL_CLOSE) as stage:
        stage.client.pause()
        stage.upstream.write(bytes(64 * HIGH_BYTES))
        await asyncio.sleep(0.05)
        assert stage.trail.response_bytes < 16 * HIGH_BYTES  # what kernel and streams hold
        stage.upstream.close()
        received = 0
        async with asyncio.timeout(30):
            while received < 64 * HIGH_BYTES + len(HEAD) and await stage.client.more():
                received += len(stage.client.buffer)
                stage.client.buffer.clear()

        assert await stage.ended() == b""


async def test_an_upstream_that_closes_early_ends_it() -> None:
    async with pumping(Framing("length", 5)) as stage:
        stage.upstream.write(b"hel")
        await until(lambda: stage.client.buffer == HEAD + b"hel")
        stage.upstream.close()

        assert await stage.ended() == b""


async def test_chunks_that_are_none_end_it() -> None:
    async with pumping(CHUNKED) as stage:
        await until(lambda: stage.client.buffer == HEAD)
        stage.upstream.write(b"nonsense\r\n")

        assert isinstance(await stage.ended(), Malformed)


async def test_others_have_their_turns_while_very_many_small_chunks_pass() -> None:
    client, ours = await plain_pair()
    dialled, upstream = await plain_pair()
    dialled.buffer += b"1\r\nx\r\n" * (40 * MAX_CHUNKS) + b"0\r\n\r\nnext"
    trail = Trail(lambda _: None, "run_1", "connect")

    unsent, turns = await turns_during(
        Pump(ours, dialled, reader_for(CHUNKED), writer_for(UNTIL_CLOSE), trail).run(b"")
    )

    await until(lambda: len(client.buffer) + len(unsent) == 40 * MAX_CHUNKS)
    for stream in (client, ours, dialled, upstream):
        stream.abort()
    assert turns >= 40
    assert bytes(client.buffer) + unsent == b"x" * (40 * MAX_CHUNKS)
    assert bytes(dialled.buffer) == b"next"
