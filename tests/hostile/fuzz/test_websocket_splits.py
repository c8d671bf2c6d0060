"""A websocket whose service repeats the credential: gone however its frames are cut, everything else as it was."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.wire import cut, held

from hostile.fuzz.stage import API, Stage, a_stage
from hostile.fuzz.test_echoes import OK, RULE, TOKEN, WRITINGS, saying, shows
from hostile.fuzz.test_splits import CUTS
from hostile.fuzz.traffic import SIZES, spoilt

ASKED = (
    b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
Frame = tuple[int, bytes]  # the first byte, and the payload


def frame(first: int, payload: bytes) -> bytes:
    """Return a server's frame (RFC 6455 §5.2)."""
    size = len(payload)
    return bytes((first, size)) + payload if size < 126 else bytes((first, 126)) + size.to_bytes(2) + payload


def frames_of(data: bytes) -> Iterator[Frame]:
    """Yield the frames of data; the last may be half."""
    at = 0
    while at + 2 <= len(data):
        size, start = data[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(data[start : start + 2]), start + 2
        yield data[at], data[start : start + size]
        at = start + size


def messages_of(frames: list[Frame]) -> list[bytes]:
    """Return the messages that frames make up, and each control frame as one."""
    numbers, number = [], 0
    for first, _ in frames:
        numbers.append(number)
        number += first & 0x88 == 0x80  # the last of a message
    parts = [(number, payload) for number, (first, payload) in zip(numbers, frames, strict=True) if not first & 8]
    whole = [b"".join(payload for _, payload in group) for _, group in groupby(parts, lambda part: part[0])]
    return whole + [payload for first, payload in frames if first & 8]


WRITTEN = [write(TOKEN).encode() for write in WRITINGS.values()]
PART = st.one_of(st.sampled_from(WRITTEN), st.sampled_from(WRITTEN), st.binary(max_size=20))
LESS = st.tuples(st.sampled_from(WRITTEN), st.integers(1, 8)).map(lambda pair: pair[0][: pair[1]])


@st.composite
def talks(draw: st.DrawFn) -> list[Frame]:
    """Return what a service sends: messages in frames, with pings between, the last perhaps unfinished."""
    frames: list[Frame] = []
    for _ in range(draw(st.integers(1, 4))):
        payload = b"".join(draw(st.lists(st.one_of(PART, PART, LESS), max_size=4)))
        pieces = list(cut(payload, draw(st.lists(st.integers(0, 12), max_size=5)))) or [b""]
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            frames.append(((0x80 if is_last else 0) | (draw(st.sampled_from((1, 2))) if number == 0 else 0), piece))
            if draw(st.integers(0, 3)) == 0:
                frames.append((draw(st.sampled_from((0x89, 0x8A))), draw(PART)[:125]))
    if draw(st.booleans()):
        frames.append((1, draw(LESS)))
    return frames


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(OK, rules=(RULE,)) as made:
        yield made


async def said(stage: Stage, words: bytes, cuts: list[int], wire_cuts: list[int]) -> bytes:
    """Have the service say words, cut so, and close; return all that the client got."""
    await stage.begin()
    before = held()
    stage.answer, stage.cuts = saying(words, b""), wire_cuts
    peer = await stage.client(API, cuts)
    await peer.send(ASKED, cuts, cuts)
    await stage.until(lambda: bool(stage.guest.records))
    await stage.quiet()
    left = b"".join(bytes(one.data) for one in stage.seen)
    assert (left.count(TOKEN.encode()), b"permessage-deflate" in left) == (1, False)
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before
    return bytes(peer.data)


@fuzzed(80)
@given(talk=talks(), cuts=CUTS, wire_cuts=CUTS)
async def test_the_client_gets_the_same_frames_without_the_credential_however_they_are_cut(
    stage: Stage, talk: list[Frame], cuts: list[int], wire_cuts: list[int]
) -> None:
    words = HEAD + b"\r\n" + b"".join(frame(*each) for each in talk)
    came = await said(stage, words, cuts, wire_cuts)
    (record,) = stage.guest.records

    head, _, rest = came.partition(b"\r\n\r\n")
    got = list(frames_of(rest))
    assert head == HEAD.removesuffix(b"\r\n")
    assert [(first, len(payload)) for first, payload in got] == [(first, len(payload)) for first, payload in talk]
    for sent, message in zip(messages_of(talk), messages_of(got), strict=True):
        assert not shows(message)
        assert message == sent or b"[moat" in message or any(sent.count(each) for each in WRITTEN)
        assert message != sent or not shows(sent)
    assert not shows(came)
    assert (record.status, record.outcome, record.response_bytes) == (101, "forwarded", len(rest))
    assert came == await said(stage, words, [], [])


@pytest.mark.parametrize("size", [125, 126, 127, 65_535, 65_536, 300_000])
async def test_single_bytes_and_long_frames_are_the_same(stage: Stage, size: int) -> None:
    payload = (TOKEN.encode() + b"-" * 40).join([b""] * (size // 20))[:size].ljust(size, b"-")
    long = b"\x82\x7f" + size.to_bytes(8) + payload if size > 65_535 else frame(0x82, payload)
    words = HEAD + b"\r\n" + frame(1, TOKEN.encode()[:4]) + frame(0x80, TOKEN.encode()[4:]) + long + frame(0x88, b"")
    singly = [1] * 2_000 + [16_000] * 30

    came = await said(stage, words, singly, singly)

    assert came == await said(stage, words, [], [])
    assert not shows(came)
    assert len(came) == len(words)


def deflated(payload: bytes) -> bytes:
    """Return payload as permessage-deflate has it (RFC 7692 §7.2.1)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


@fuzzed(30)
@given(
    agreed=st.sampled_from((b"", b"Sec-WebSocket-Extensions: permessage-deflate\r\n")), talk=talks(), cuts=CUTS,
    wire_cuts=CUTS,
)  # fmt: skip
async def test_nothing_compressed_passes_however_it_is_cut(
    stage: Stage, agreed: bytes, talk: list[Frame], cuts: list[int], wire_cuts: list[int]
) -> None:
    packed = frame(0xC1, deflated(TOKEN.encode() * 2))
    fine = b"".join(frame(*each) for each in talk)
    came = await said(stage, HEAD + agreed + b"\r\n" + fine + packed + frame(0x81, b"more"), cuts, wire_cuts)
    (record,) = stage.guest.records

    head, _, rest = came.partition(b"\r\n\r\n")
    assert "extension" in record.reason
    assert not shows(came)
    if agreed:
        assert (head[:12], record.status, record.outcome) == (b"HTTP/1.1 502", 502, "failed")
    else:
        assert head[:12] == b"HTTP/1.1 101"
        clean = await said(stage, HEAD + b"\r\n" + fine, [], [])
        assert clean.partition(b"\r\n\r\n")[2].startswith(rest)  # how much of what is fine has left is chance


@fuzzed(80)
@given(
    words=st.one_of(spoilt(talks().map(lambda talk: b"".join(frame(*each) for each in talk))), st.binary(max_size=80)),
    sizes=SIZES,
)
async def test_what_is_no_frame_ends_the_connection_and_nothing_else(
    stage: Stage, words: bytes, sizes: list[int]
) -> None:
    came = await said(stage, HEAD + b"\r\n" + words, [], sizes)

    # What is spoilt may show the credential but for its first byte: where that stands as a frame's length, say.
    assert came.startswith(HEAD)
    assert len(came) <= len(HEAD) + 2 + len(words)
    assert [record.status for record in stage.guest.records] == [101]
