"""Nothing of a connection outlives it, however it ended: no task, no descriptor, no timer."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.wire import held, timers, turns

from hostile.fuzz.frames import streams as frames
from hostile.fuzz.stage import API, OTHER, PLAIN, Stage
from hostile.fuzz.test_garbage_from_clients import stage
from hostile.fuzz.test_http2_garbage import H2_ONLY
from hostile.fuzz.traffic import SIZES, streams, valid

__all__ = ["stage"]  # the fixture
CLIENTS = st.one_of(
    st.tuples(st.just(""), streams(PLAIN, absolute=True)),
    st.tuples(
        st.just(""),
        st.binary(max_size=40).map(
            lambda rest: b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com\r\n\r\n\x16\x03\x01" + rest
        ),
    ),
    st.tuples(st.just(API), streams(API, absolute=False)),
)


@fuzzed(60)
@given(client=CLIENTS, sizes=SIZES, abort=st.booleans(), waits=st.integers(0, 20))
async def test_a_client_that_goes_at_any_moment_leaves_nothing_behind(
    stage: Stage,  # the fixture
    client: tuple[str, bytes],
    sizes: list[int],
    abort: bool,
    waits: int,
) -> None:
    await stage.begin()
    before = held(), timers(asyncio.get_running_loop())

    peer = await stage.client(client[0])
    await peer.send(client[1], sizes)
    await turns(waits)
    peer.close(abort=abort)
    await stage.until(lambda: not stage.is_serving)
    await stage.empty()

    assert (held(), timers(asyncio.get_running_loop())) == before
    assert stage.complaints == []


@fuzzed(50)
@given(host=st.sampled_from((API, OTHER)), sent=frames(), sizes=SIZES, abort=st.booleans(), waits=st.integers(0, 20))
async def test_a_client_of_http_2_that_goes_at_any_moment_leaves_nothing_behind(
    stage: Stage,  # the fixture
    host: str,
    sent: bytes,
    sizes: list[int],
    abort: bool,
    waits: int,
) -> None:
    await stage.begin()
    before = held(), timers(asyncio.get_running_loop())

    peer = await stage.client(host, (), H2_ONLY)
    await peer.send(sent, sizes)
    await turns(waits)
    peer.close(abort=abort)
    await stage.until(lambda: not stage.is_serving)
    await stage.empty()

    assert (held(), timers(asyncio.get_running_loop())) == before
    assert stage.complaints == []


@fuzzed(30)
@given(requests=st.lists(valid(PLAIN, absolute=True), min_size=1, max_size=3).map(b"".join), waits=st.integers(0, 20))
async def test_a_run_that_ends_at_any_moment_leaves_nothing_behind(
    stage: Stage,  # the fixture
    requests: bytes,
    waits: int,
) -> None:
    await stage.begin()
    house = stage.guest.house
    before = held(), timers(asyncio.get_running_loop())

    peer = await stage.client()
    await peer.send(requests)
    await turns(waits)
    for room in house._rooms.values():
        for task in list(room.connections):
            task.cancel()
    await stage.until(lambda: not stage.is_serving)
    await stage.empty()

    assert (held(), timers(asyncio.get_running_loop())) == before
    assert stage.complaints == []
