"""Whatever a client sends: only whole requests that it made reach an upstream, and nothing of it stays or raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from support.fuzz import fuzzed
from support.strict import Message
from support.wire import held

from hostile.fuzz.stage import API, OTHER, PLAIN, Stage, a_stage
from hostile.fuzz.traffic import SIZES, one_by_one, streams
from hostile.fuzz.verdicts import check_client, check_upstream


def answer(name: str, message: Message) -> Iterable[bytes]:
    del name
    body = b"" if message.first[0] == b"HEAD" else b"hello"
    return [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(answer) as made:
        yield made


async def heard(stage: Stage, sent: bytes, sizes: list[int], host: str = "") -> None:
    """Send bytes, wait until nothing moves any more, and judge what they did."""
    await stage.begin()
    peer = await stage.client(host)
    before = held()
    await peer.send(sent, sizes)
    await stage.quiet()
    peer.close()
    await stage.until(lambda: not stage.is_serving)

    check_upstream(stage, sent)
    check_client(bytes(peer.data), sent, ended=peer.has_ended)
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before


@pytest.mark.parametrize("host", [PLAIN, API])
async def test_each_odd_thing_by_itself_is_refused_or_means_one_thing_only(stage: Stage, host: str) -> None:
    for sent in one_by_one(host, absolute=host == PLAIN):
        await heard(stage, sent, [], "" if host == PLAIN else host)


@fuzzed(200)
@given(sent=streams(PLAIN, absolute=True), sizes=SIZES)
async def test_at_the_proxy_only_whole_requests_get_through_and_nothing_stays(
    stage: Stage, sent: bytes, sizes: list[int]
) -> None:
    await heard(stage, sent, sizes)


@fuzzed(100)
@given(sent=streams(API, absolute=False), sizes=SIZES)
async def test_in_a_tunnel_the_credential_leaves_once_with_each_whole_request(
    stage: Stage, sent: bytes, sizes: list[int]
) -> None:
    await heard(stage, sent, sizes, API)


@fuzzed(50)
@given(sent=streams(OTHER, absolute=False), sizes=SIZES)
async def test_in_a_tunnel_to_a_host_without_a_grant_no_credential_leaves(
    stage: Stage, sent: bytes, sizes: list[int]
) -> None:
    await heard(stage, sent, sizes, OTHER)
