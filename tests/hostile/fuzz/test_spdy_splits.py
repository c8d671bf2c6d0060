"""SPDY/3.1 whose service repeats the credential: at most its first bytes come, however its frames are cut."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.scrub import PROMPT_BYTES
from moat.proxy.spdy import DICTIONARY
from support.fuzz import fuzzed
from support.wire import held

from hostile.fuzz.stage import API, Stage, a_stage
from hostile.fuzz.test_echoes import OK, RULE, TOKEN, WRITINGS, saying, shows
from hostile.fuzz.test_splits import CUTS
from hostile.fuzz.traffic import SIZES, spoilt

ASKED = b"POST /exec HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
WRITTEN = [write(TOKEN).encode() for write in WRITINGS.values()]
PART = st.one_of(st.sampled_from(WRITTEN), st.binary(max_size=20))
LESS = st.tuples(st.sampled_from(WRITTEN), st.integers(1, 8)).map(lambda pair: pair[0][: pair[1]])
PING = b"\x80\3\0\6\0\0\0\4\0\0\0\1"
Piece = tuple[int, bytes, bool]  # stream, payload, whether a ping follows
TALK = st.lists(st.tuples(st.integers(1, 3), st.one_of(PART, PART, LESS), st.booleans()), max_size=8)


def frame(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a frame of data."""
    return stream.to_bytes(4) + bytes((flags,)) + len(payload).to_bytes(3) + payload


def wire(talk: list[Piece]) -> bytes:
    """Return a talk as a server sends it."""
    return b"".join(frame(stream, payload) + (PING if is_pinged else b"") for stream, payload, is_pinged in talk)


def heard(data: bytes) -> tuple[dict[int, bytes], int]:
    """Return what each stream carries, and how many pings came."""
    streams: dict[int, bytes] = {}
    pings, at = 0, 0
    while at < len(data):
        size = int.from_bytes(data[at + 5 : at + 8])
        if data[at] & 0x80:
            pings += 1
        elif size:
            stream = int.from_bytes(data[at : at + 4])
            streams[stream] = streams.get(stream, b"") + data[at + 8 : at + 8 + size]
        at += 8 + size
    assert at == len(data)
    return streams, pings


GARBAGE = st.one_of(spoilt(TALK.map(wire)), st.binary(max_size=80)).filter(lambda words: len(words) < 4_000)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(OK, rules=(RULE,)) as made:
        yield made


async def said(stage: Stage, words: bytes, cuts: list[int]) -> bytes:
    """Have the service say words, cut so, and close; return all that the client got."""
    await stage.begin()
    before = held()
    stage.answer, stage.cuts = saying(words, b""), cuts
    peer = await stage.client(API)
    await peer.send(ASKED)
    await stage.until(lambda: bool(stage.guest.records))
    await stage.quiet()
    assert b"".join(bytes(one.data) for one in stage.seen).count(TOKEN.encode()) == 1
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before
    return bytes(peer.data)


@fuzzed(80)
@given(talk=TALK, cuts=CUTS)
async def test_each_stream_comes_without_the_credential_however_it_is_cut(
    stage: Stage, talk: list[Piece], cuts: list[int]
) -> None:
    came = await said(stage, HEAD + wire(talk), cuts)
    (record,) = stage.guest.records
    sent, pings = heard(wire(talk))
    got, pongs = heard(came.removeprefix(HEAD))

    assert (came.startswith(HEAD), pongs) == (True, pings)
    assert {stream: len(payload) for stream, payload in got.items()} == {
        stream: len(payload) for stream, payload in sent.items()
    }
    for stream, payload in got.items():
        assert not shows(payload)
        assert not any(form[PROMPT_BYTES - 1 : -6] in payload for form in WRITTEN)
        assert payload == sent[stream] or b"oat:redacte" in payload
    assert (record.status, record.outcome, record.response_bytes) == (101, "forwarded", len(wire(talk)))


@fuzzed(40)
@given(written=st.sampled_from(WRITTEN), kind=st.sampled_from((1, 2, 8)), talk=TALK, cuts=CUTS)
async def test_a_credential_in_compressed_headers_ends_the_connection(
    stage: Stage, written: bytes, kind: int, talk: list[Piece], cuts: list[int]
) -> None:
    packer = zlib.compressobj(zdict=DICTIONARY)
    plain = b"\0\0\0\1\0\0\0\1x" + len(written).to_bytes(4) + written
    block = b"\0\0\0\2\0\0\0\0\0\0"[: 10 if kind == 1 else 4] + packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)
    headers = b"\x80\3" + kind.to_bytes(2) + len(block).to_bytes(4) + block
    came = await said(stage, HEAD + wire(talk) + headers + frame(1, b"more"), cuts)
    (record,) = stage.guest.records

    assert "credential" in record.reason
    assert headers not in came
    assert not shows(came)


@fuzzed(80)
@given(words=GARBAGE, sizes=SIZES)
async def test_what_is_no_frame_ends_the_connection_and_nothing_else(
    stage: Stage, words: bytes, sizes: list[int]
) -> None:
    came = await said(stage, HEAD + words, sizes)

    assert came.startswith(HEAD)
    assert heard(came.removeprefix(HEAD))  # whole frames, whatever came
    assert [record.status for record in stage.guest.records] == [101]
