from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.http2_frames import (
    FLOOD_BURST,
    FLOOD_PER_S,
    FRAME_BYTES,
    MAX_CONTINUATIONS,
    PREFACE,
    Broken,
    Cutter,
    Flood,
    Frame,
    Kind,
)


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


SETTINGS = frame(Kind.SETTINGS)


def cut(data: bytes, *, has_preface: bool = False) -> list[Frame]:
    return list(Cutter(has_preface=has_preface).feed(data))


def test_frames_are_what_was_sent() -> None:
    ping = frame(Kind.PING, b"12345678", 1)
    found = cut(PREFACE + SETTINGS + frame(Kind.DATA, b"payload", 1, 0x80000003) + ping, has_preface=True)

    assert [(each.kind, each.flags, each.stream, each.payload) for each in found] == [
        (Kind.SETTINGS, 0, 0, b""),
        (Kind.DATA, 1, 3, b"payload"),
        (Kind.PING, 1, 0, b"12345678"),
    ]
    assert found[2].raw == ping


@given(st.lists(st.integers(1, 30), max_size=30))
def test_however_the_bytes_come_the_frames_are_the_same(sizes: list[int]) -> None:
    data = PREFACE + SETTINGS + frame(Kind.DATA, b"x" * 100, 0, 1) + frame(99, b"y") + frame(Kind.PING, bytes(8))
    cutter, rest = Cutter(has_preface=True), data
    found: list[Frame] = []
    for size in (*sizes, len(data)):
        found += cutter.feed(rest[:size])
        rest = rest[size:]

    assert found == cut(data, has_preface=True)


@pytest.mark.parametrize("count", range(len(PREFACE)))
def test_a_beginning_of_the_preface_is_waited_on_and_another_is_refused(count: int) -> None:
    assert cut(PREFACE[:count], has_preface=True) == []
    with pytest.raises(Broken):
        cut(PREFACE[:count] + b"!", has_preface=True)


@pytest.mark.parametrize(
    "data",
    [
        frame(Kind.PING, bytes(8)),
        frame(Kind.SETTINGS, b"", 1),
        SETTINGS + frame(Kind.PUSH_PROMISE, bytes(4), 4, 1),
        SETTINGS + (FRAME_BYTES + 1).to_bytes(3) + bytes(6),
        SETTINGS + frame(Kind.HEADERS, b"x", 0, 1) + frame(Kind.CONTINUATION, b"x", 0, 1) * (MAX_CONTINUATIONS + 1),
        SETTINGS
        + frame(Kind.HEADERS, bytes(FRAME_BYTES), 0, 1)
        + frame(Kind.CONTINUATION, bytes(FRAME_BYTES), 0, 1) * 4,
    ],
    ids=["no SETTINGS", "an ACK of nothing", "a push", "too long", "too many pieces", "too long in pieces"],
)
def test_what_is_out_of_bounds_ends_the_connection(data: bytes) -> None:
    with pytest.raises(Broken):
        cut(data)


def test_a_frame_too_long_is_refused_before_its_payload_has_come() -> None:
    with pytest.raises(Broken, match="16 KiB"):
        cut(SETTINGS + b"\xff\xff\xff" + bytes(6))


@pytest.mark.parametrize(
    ("data", "is_idle"),
    [
        (frame(Kind.DATA, b"x", 0, 1), False),
        (frame(Kind.DATA, b"", 0, 1), True),
        (frame(Kind.DATA, b"", 1, 1), False),
        (frame(Kind.DATA, b"\xff" + bytes(255), 8, 1), True),
        (frame(Kind.HEADERS, b"", 5, 1), False),
        (frame(Kind.WINDOW_UPDATE, bytes(4)), False),
        (frame(Kind.GOAWAY, bytes(8)), True),
        (frame(Kind.CONTINUATION, b"x", 0, 1), False),
        (frame(Kind.CONTINUATION, b"", 0, 1), True),
        (frame(Kind.PING, bytes(8)), True),
        (frame(Kind.SETTINGS), True),
        (frame(Kind.RST_STREAM, bytes(4), 0, 1), True),
        (frame(Kind.PRIORITY, bytes(5), 0, 1), True),
        (frame(200, b"x"), True),
    ],
)
def test_frames_that_bring_nothing_are_known(data: bytes, is_idle: bool) -> None:
    assert cut(SETTINGS + data)[1].is_idle is is_idle


def test_a_burst_passes_and_a_flood_does_not() -> None:
    now = [0.0]
    flood = Flood(lambda: now[0])
    for _ in range(FLOOD_BURST):
        flood.count()
    now[0] = 1 / FLOOD_PER_S
    flood.count()

    with pytest.raises(Broken, match="flood"):
        flood.count()
