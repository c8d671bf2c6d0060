"""HTTP/2 frames of any kind and order: whole requests for the connection's host leave, and nothing stays or raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest
from core.proxy.server.pairs import CA
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.server.upstream import client_context
from support import strict
from support.fuzz import fuzzed
from support.strict import Message
from support.wire import Peer, held

from hostile.fuzz.frames import PREFACE, SETTINGS, answers, block, frame, streams
from hostile.fuzz.over_http2 import got
from hostile.fuzz.stage import API, OTHER, SECRET, Stage, a_stage
from hostile.fuzz.traffic import SIZES
from hostile.fuzz.verdicts import check_client

H2_ONLY = client_context(CA.certificate_pem, ("h2",))


def answer(name: str, message: Message) -> Iterable[bytes]:
    del name
    if message.first[0] == b"HEAD":
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"]
    return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Check: 1\r\n\r\n"]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(answer) as made:
        yield made


def check(stage: Stage) -> list[Message]:
    """Check what reached the upstreams, which speak HTTP/1.1 only; return it."""
    found: list[Message] = []
    for peer in stage.seen:
        read = strict.requests(bytes(peer.data), bare=True)
        assert read.problem == "", (read.problem, bytes(peer.data))
        assert not read.rest or peer.has_ended
        for message in read.messages:
            assert message.all(b"host") == [peer.name.encode()]
            assert message.first[0] not in (b"TRACE", b"CONNECT")
            assert peer.name != API or message.all(b"authorization") == [f"Bearer {SECRET}".encode()]
        assert peer.data.count(SECRET.encode()) == (len(read.messages) if peer.name == API else 0)
        found += read.messages
    recorded = Counter((record.method, record.path) for record in stage.guest.records)
    came = Counter((message.first[0].decode(), message.first[1].partition(b"?")[0].decode()) for message in found)
    assert not came - recorded, "something left that no record tells of"
    return found


@fuzzed(150)
@given(host=st.sampled_from((OTHER, OTHER, API)), sent=streams(), sizes=SIZES)
async def test_frames_of_any_kind_and_order_leave_as_whole_requests_or_not_at_all(
    stage: Stage, host: str, sent: bytes, sizes: list[int]
) -> None:
    await stage.begin()
    peer = await stage.client(host, (), H2_ONLY)
    before = held()
    await peer.send(sent, sizes)
    await stage.quiet()
    peer.close()
    await stage.until(lambda: not stage.is_serving)

    for message in check(stage):
        assert message.first[2] == b"HTTP/1.1"
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before


class Says:
    """An HTTP/2 upstream that says the same to whoever comes, whatever was asked."""

    def __init__(self) -> None:
        self.words, self.told = b"", set[Peer]()
        self.stage: Stage | None = None

    def __call__(self, peer: Peer) -> None:
        """Say it, once a request is there."""
        if len(peer.data) > 100 and peer not in self.told:
            self.told.add(peer)
            assert self.stage is not None
            self.stage.later(peer.send(self.words, self.stage.cuts))


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Stage, Says]]:
    says = Says()
    async with a_stage(answer, says) as made:
        says.stage = made
        yield made, says


@fuzzed(100)
@given(host=st.sampled_from((OTHER, API)), said=answers(), sizes=SIZES, again=st.booleans())
async def test_frames_of_an_upstream_reach_a_client_as_an_answer_or_a_reset(
    scene: tuple[Stage, Says], host: str, said: bytes, sizes: list[int], again: bool
) -> None:
    stage, says = scene
    await stage.begin()
    says.words, stage.cuts = said, sizes
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    peer = await stage.client(host, (), H2_ONLY)
    before = held()
    for number in (1, 3)[: 1 + again]:
        client.send_headers(
            number,
            [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/first")],
            end_stream=True,
        )
        await peer.send(client.data_to_send())
        await stage.quiet()
    await stage.hang_up()

    for event in client.receive_data(bytes(peer.data)):  # which raises for what a client must not be sent
        came = repr(getattr(event, "headers", b"")) + repr(getattr(event, "data", b""))
        assert host != API or SECRET not in came
        assert "b'connection'" not in came
    assert stage.guest.records
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before


@fuzzed(100)
@given(
    host=st.sampled_from((OTHER, API)), method=st.sampled_from(("GET", "GET", "HEAD", "POST")), said=answers(),
    sizes=SIZES, again=st.booleans(),
)  # fmt: skip
async def test_frames_of_an_upstream_reach_a_client_of_http_1_as_an_answer_or_an_end(
    scene: tuple[Stage, Says], host: str, method: str, said: bytes, sizes: list[int], again: bool
) -> None:
    stage, says = scene
    await stage.begin()
    says.words, stage.cuts = said, sizes
    body = "Content-Length: 3\r\n\r\nabc" if method == "POST" else "\r\n"
    one = f"{method} /first HTTP/1.1\r\nHost: {host}\r\n{body}".encode()
    peer = await stage.client(host)
    before = held()
    for _ in range(1 + again):
        await peer.send(one)
        await stage.quiet()
    await stage.hang_up()

    came = bytes(peer.data)
    final = [each for each in check_client(came, one * (1 + again), ended=peer.has_ended) if each.first[1] >= b"200"]
    assert len(final) <= 1 + again
    assert host != API or SECRET.encode() not in came
    assert stage.guest.records
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before


def talk() -> bytes:
    """Return three requests, with bodies, padding, trailers, and a section in pieces."""

    def head(method: str, path: str, *more: tuple[str, str]) -> bytes:
        return block([(":method", method), (":scheme", "https"), (":authority", OTHER), (":path", path), *more])

    split = head("POST", "/second", ("x-long", "y" * 300))
    return b"".join(
        (
            PREFACE,
            SETTINGS,
            frame(1, 5, 1, head("GET", "/first")),
            frame(1, 0, 3, split[:50]),
            frame(9, 0, 3, split[50:60]),
            frame(9, 4, 3, split[60:]),
            frame(0, 0, 3, b"hello"),
            frame(0, 8, 3, b"\x05world" + bytes(5)),
            frame(6, 0, 0, bytes(8)),
            frame(1, 5, 3, block([("x-check", "1")])),
            frame(1, 4, 5, head("PUT", "/third", ("content-length", "3"))),
            frame(8, 0, 0, b"\0\0\x10\0"),
            frame(0, 1, 5, b"abc"),
            frame(1, 5, 7, head("HEAD", "/fourth")),
        )
    )


async def told(stage: Stage, cuts: list[int], wire_cuts: list[int]) -> object:
    """Return what the upstreams and the client are told, whatever the order of streams."""
    await stage.begin()
    stage.cuts = wire_cuts
    peer = await stage.client(OTHER, wire_cuts, H2_ONLY)
    await peer.send(talk(), cuts, wire_cuts)
    await stage.quiet()
    answers = got(peer, {1: "GET", 3: "POST", 5: "PUT", 7: "HEAD"})
    seen = sorted((each.first, each.fields, each.body, each.trailers, each.is_whole) for each in check(stage))
    records = sorted(
        (one.path, one.status, one.outcome, one.request_bytes, one.response_bytes) for one in stage.guest.records
    )
    assert stage.complaints == []
    return seen, answers, records


@fuzzed(50)
@given(cuts=SIZES, wire_cuts=SIZES)
async def test_both_sides_see_the_same_however_the_frames_are_cut(
    stage: Stage, cuts: list[int], wire_cuts: list[int]
) -> None:
    uncut = UNCUT.get("") or UNCUT.setdefault("", await told(stage, [], []))

    assert await told(stage, cuts, wire_cuts) == uncut


UNCUT: dict[str, object] = {}
