from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from moat.proxy.http1 import Malformed
from moat.proxy.server.stream import HIGH_BYTES, Stream
from moat.proxy.server.tunnel import SIEVE_BYTES, join

from core.proxy.server.pairs import plain_pair, tls_pair, turns_during, until

LONG_S = 5.0


@dataclass
class Counted:
    request_bytes: int = 0
    response_bytes: int = 0


async def test_bytes_pass_both_ways_and_are_counted_while_they_pass() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    counted = Counted()
    client.write(b"hello")
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled, counted, idle_s=LONG_S, half_idle_s=LONG_S))
        assert await upstream.more()
        upstream.write(b"good day")
        assert await client.more()
        assert counted == Counted(5, 8)
        upstream.close()
        assert not await client.more()
        client.close()

    assert (bytes(upstream.buffer), bytes(client.buffer)) == (b"hello", b"good day")
    assert joined.result() == ""
    client.close()
    dialled.close()


Pair = Callable[[], Awaitable[tuple[Stream, Stream]]]


@pytest.mark.parametrize("far", [plain_pair, tls_pair], ids=["to plain", "to TLS"])
@pytest.mark.parametrize("near", [plain_pair, tls_pair], ids=["from plain", "from TLS"])
async def test_a_client_that_has_said_all_still_gets_the_answer(near: Pair, far: Pair) -> None:
    client, door = await near()
    dialled, upstream = await far()
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled, Counted(), idle_s=LONG_S, half_idle_s=LONG_S))
        client.write(b"question")
        client.end()
        while await upstream.more():
            pass
        upstream.write(b"answer")
        upstream.close()
        while await client.more():
            pass

    assert (bytes(upstream.buffer), bytes(client.buffer), joined.result()) == (b"question", b"answer", "")
    client.close()


async def test_an_upstream_that_has_said_all_still_hears_the_client() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(join(door, dialled, Counted(), idle_s=LONG_S, half_idle_s=LONG_S))
        upstream.end()
        assert not await client.more()
        client.write(b"goodbye")
        client.close()
        while await upstream.more():
            pass

    assert upstream.buffer == b"goodbye"
    upstream.close()


async def test_the_side_that_is_left_may_not_be_silent_for_as_long() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    client.close()

    assert await join(door, dialled, Counted(), idle_s=60, half_idle_s=0.01) == "nothing was said for 0.01 s"
    await until(lambda: upstream.is_over)
    upstream.close()


async def test_a_reset_of_one_side_ends_the_other() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled, Counted(), idle_s=60, half_idle_s=60))
        upstream.write(b"x" * 4 * HIGH_BYTES)  # more than is taken, so that the end is a reset
        assert await client.more()
        client.abort()
        while await upstream.more():
            pass

    assert joined.result() == ""
    upstream.close()


async def test_silence_on_both_sides_ends_it() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()

    why = await join(door, dialled, Counted(), idle_s=0.01, half_idle_s=LONG_S)
    await until(lambda: client.is_over and upstream.is_over)

    assert why == "nothing was said for 0.01 s"
    client.close()
    upstream.close()


async def test_a_byte_in_either_direction_is_no_silence() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    clock = asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled, Counted(), idle_s=0.5, half_idle_s=LONG_S))
        began = clock()
        while clock() - began < 0.6:  # longer than the limit; pieces come far more often than that
            upstream.write(b"x")
            assert await client.more()
        assert not joined.done()
        upstream.close()
        assert not await client.more()
        client.close()

    assert joined.result() == ""
    dialled.close()


class Loud:
    """A sieve that shouts, keeps the last byte back, and cannot bear a question mark."""

    def __init__(self) -> None:
        self._last = b""

    def feed(self, data: bytes) -> bytes:
        if b"?" in data:
            raise Malformed("a question")
        out, self._last = (self._last + data[:-1]).upper(), data[-1:]
        return out

    def finish(self) -> bytes:
        return self._last.upper()


async def test_what_the_client_gets_goes_through_the_sieve_and_what_it_sends_does_not() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    tally = Counted()
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(join(door, dialled, tally, idle_s=5, half_idle_s=LONG_S, sieve=Loud()))
        client.write(b"why?")
        assert await upstream.more()
        upstream.write(b"because")
        upstream.close()
        await until(lambda: client.is_over)
        client.close()

    assert (bytes(upstream.buffer), bytes(client.buffer), joined.result()) == (b"why?", b"BECAUSE", "")
    assert (tally.request_bytes, tally.response_bytes) == (4, 7)
    client.close()
    dialled.close()


async def test_what_does_not_go_through_the_sieve_ends_the_tunnel() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    upstream.write(b"why?")

    assert await join(door, dialled, Counted(), idle_s=5, half_idle_s=LONG_S, sieve=Loud()) == "a question"
    await until(lambda: client.is_over)
    assert client.buffer == b""
    client.close()
    dialled.close()
    upstream.close()


class Sifted:
    """A sieve that notes how much it was given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def feed(self, data: bytes) -> bytes:
        self.sizes.append(len(data))
        return data

    def finish(self) -> bytes:
        return b""


async def test_others_have_their_turns_while_very_many_frames_are_sifted() -> None:
    client, door = await plain_pair()
    dialled, upstream = await plain_pair()
    sent, sieve = bytes(range(256)) * (SIEVE_BYTES // 256) * 20, Sifted()
    dialled.buffer += sent
    upstream.end()
    client.end()

    problem, turns = await turns_during(join(door, dialled, Counted(), idle_s=LONG_S, half_idle_s=LONG_S, sieve=sieve))
    await until(lambda: len(client.buffer) == len(sent))
    for stream in (client, upstream):
        stream.abort()
    assert problem == ""
    assert bytes(client.buffer) == sent
    assert sieve.sizes == [SIEVE_BYTES] * 20
    assert turns >= 20
