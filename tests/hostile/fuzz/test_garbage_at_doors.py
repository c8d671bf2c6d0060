"""Garbage at the other doors: of those who have no token, and at addresses that stand for no name. Nothing leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.strict import answers
from support.wire import Peer, held
from support.worker import RUN

from hostile.fuzz.stage import API, PLAIN, Stage, a_stage
from hostile.fuzz.test_garbage_from_clients import answer
from hostile.fuzz.traffic import SIZES, streams

HELLO = st.binary(max_size=200).map(lambda rest: b"\x16\x03\x01" + len(rest).to_bytes(2, "big") + rest)
NOISE = st.one_of(st.binary(max_size=300), HELLO, streams(PLAIN, absolute=True), streams(API, absolute=False))


@dataclass
class Doors:
    stage: Stage
    at: dict[str, tuple[str, int]]

    async def heard(self, door: str, sent: bytes, sizes: list[int]) -> bytes:
        """Send bytes to a door; return what came back, with nothing left and nothing gone out."""
        await self.stage.begin()
        before = held()
        _, peer = await asyncio.get_running_loop().create_connection(Peer, *self.at[door])
        self.stage.peers.append(peer)
        await peer.send(sent, sizes)
        await self.stage.quiet()
        peer.close()
        await self.stage.until(lambda: not self.stage.is_serving)
        await self.stage.empty()
        assert self.stage.seen == []
        assert self.stage.complaints == []
        assert held() <= before
        return bytes(peer.data)


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with a_stage(answer) as stage:
        listen = stage.guest.listen
        yield Doors(stage, {"token": listen("", "token"), "http": listen(RUN, "http"), "tls": listen(RUN, "tls")})


@fuzzed(80)
@given(sent=NOISE, sizes=SIZES)
async def test_without_a_token_nothing_leaves_and_nothing_is_let_in(
    doors: Doors, sent: bytes, sizes: list[int]
) -> None:
    came = await doors.heard("token", sent, sizes)

    assert {message.first[1][:1] for message in answers(came, [b"GET"] * 100, ended=True).whole} <= {b"4"}


@fuzzed(80)
@given(door=st.sampled_from(("http", "tls")), sent=NOISE, sizes=SIZES)
async def test_at_an_address_that_was_never_given_out_nothing_leaves(
    doors: Doors, door: str, sent: bytes, sizes: list[int]
) -> None:
    came = await doors.heard(door, sent, sizes)

    assert b" 200 " not in came
    assert door == "http" or came[:1] in (b"", b"\x15")  # an alert
