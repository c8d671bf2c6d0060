"""What RFC 9113 §10 warns of, and what was found since: floods, resets, windows, sections. One connection pays, alone.

frames of the test's own ─▶ moat, in this process ─▶ an upstream that counts what reaches it, or is hostile itself
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from core.proxy.server.h2_peers import Peer, ok
from h2 import events
from moat.proxy import http2_frames
from moat.proxy.http2_frames import FLOOD_BURST, PREFACE, Kind

from hostile.h2_attack import (
    END_HEADERS,
    END_STREAM,
    MANY,
    attacking,
    frame,
    head,
    literal,
    reset,
    setting,
    status_of,
    window,
)

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED, CALM = 1, 3, 6, 7, 11


@pytest.fixture(autouse=True)
def _no_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a slow machine takes for a flood be a flood all the same."""
    monkeypatch.setattr(http2_frames, "FLOOD_PER_S", 0.0)


async def test_rapid_resets_end_the_connection_and_reach_the_upstream_a_bounded_number_of_times() -> None:
    async with attacking() as attack:  # CVE-2023-44487
        for number in range(MANY):
            attack.send(head(2 * number + 1, ("x-hold", "1")), reset(2 * number + 1))

        assert await attack.goodbye() == CALM
        assert attack.asked <= FLOOD_BURST + 100
        await attack.spares_others()


@pytest.mark.parametrize(
    "provoke",
    [
        lambda stream: window(stream, 0x7FFFFFFF),
        lambda stream: frame(Kind.DATA, b"x", 0, stream),
        lambda stream: head(stream, ("x", "again")),
    ],
    ids=["a window that overflows", "data after the end", "a second head after the end"],
)
async def test_making_moat_reset_is_no_cheaper_than_resetting(provoke: Callable[[int], bytes]) -> None:
    async with attacking() as attack:  # CVE-2025-8671
        for number in range(MANY):
            stream = 2 * number + 1
            attack.send(head(stream, ("x-hold", "1")), provoke(stream))

        assert await attack.goodbye() in (CALM, PROTOCOL_ERROR, 5)  # STREAM_CLOSED may end a connection (§5.1)
        assert attack.asked <= FLOOD_BURST + 100
        await attack.spares_others()


@pytest.mark.parametrize(
    "frames",
    [
        lambda stream: head(stream, ("transfer-encoding", "chunked")),
        lambda stream: (
            head(stream, ("content-length", "5"), over=False) + frame(Kind.DATA, b"1234567", END_STREAM, stream)
        ),
    ],
    ids=["malformed heads", "bodies of another length"],
)
async def test_malformed_requests_are_reset_one_by_one_and_a_flood_of_them_is_not(
    frames: Callable[[int], bytes],
) -> None:
    async with attacking() as attack:
        attack.send(frames(1))
        assert await attack.reset_of(1) == PROTOCOL_ERROR
        for number in range(1, MANY):
            attack.send(frames(2 * number + 1))
            if number % 20 == 0:  # in turns, or most would be refused for being too many at once
                await asyncio.sleep(0)

        assert await attack.goodbye() == CALM
        await attack.spares_others()


FLOODS = {
    "settings": (frame(Kind.SETTINGS), CALM),
    "acknowledgements of settings": (frame(Kind.SETTINGS, b"", 1), CALM),
    "settings with many values": (frame(Kind.SETTINGS, b"\0\x03\0\0\0\x64" * 100), CALM),
    "pings": (frame(Kind.PING, bytes(8)), CALM),
    "answers to pings": (frame(Kind.PING, bytes(8), 1), CALM),
    "goodbyes": (frame(Kind.GOAWAY, bytes(8)), CALM),
    "priorities": (frame(Kind.PRIORITY, bytes(4) + b"\x10", 0, 1), CALM),
    "empty data": (frame(Kind.DATA, b"", 0, 1), CALM),
    "padding": (frame(Kind.DATA, b"\xff" + bytes(255), 8, 1), CALM),
    "frames of a kind that nobody knows": (frame(0xEE, b"x" * 20), CALM),
}


@pytest.mark.parametrize(("flood", "code"), FLOODS.values(), ids=FLOODS.keys())
async def test_frames_that_bring_nothing_come_in_bursts_but_not_for_ever(flood: bytes, code: int) -> None:
    async with attacking() as attack:
        attack.send(head(1, ("x-hold", "1"), over=False))
        for _ in range(MANY // 50):
            attack.send(flood * 50)

        assert await attack.goodbye() == code
        await attack.spares_others()


def section(length: int, pieces: int) -> bytes:
    """Return a head of a stream that never ends, in pieces."""
    first = head(1, over=False, flags=0)
    return first + b"".join(frame(Kind.CONTINUATION, literal("x", "y" * length), 0, 1) for _ in range(pieces))


ENDLESS = {
    "continuations without end": (section(100, 5_000), CALM),
    "large ones": (section(120, 9), CALM),
    "empty ones": (head(1, flags=0) + frame(Kind.CONTINUATION, b"", 0, 1) * 5_000, CALM),
    "one field, referred to again and again": (
        frame(Kind.HEADERS, b"\x40\x01a\x7f\xa1\x1e" + b"y" * 4_000 + b"\xbe" * 12_000, END_HEADERS | END_STREAM, 1),
        CALM,
    ),
    "an index that is none": (frame(Kind.HEADERS, b"\xff\xff\xff\xff\x0f", END_HEADERS | END_STREAM, 1), None),
    "a table that grows beyond what was offered": (frame(Kind.HEADERS, b"\x3f\xe1\xff\x03", END_HEADERS, 1), None),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "code"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_a_section_has_a_bound_however_it_comes(raw: bytes, code: int | None) -> None:
    async with attacking() as attack:
        attack.send(raw)

        said = await attack.goodbye()
        assert said is not None
        assert said in ((code,) if code == CALM else range(1, 14))
        assert attack.asked == 0
        await attack.spares_others()


BREACHES = {
    "a window of the connection that overflows": (window(0, 0x7FFFFFFF), FLOW_CONTROL_ERROR),
    "an update of nothing": (window(0, 0), PROTOCOL_ERROR),
    "an initial window beyond 31 bits": (setting(4, 0x80000000), FLOW_CONTROL_ERROR),
    "a frame size below the least": (setting(5, 100), PROTOCOL_ERROR),
    "a push that is neither on nor off": (setting(2, 2), PROTOCOL_ERROR),
    "settings of half a value": (frame(Kind.SETTINGS, bytes(5)), None),
    "settings on a stream": (frame(Kind.SETTINGS, b"", 0, 1), PROTOCOL_ERROR),
    "a ping of seven bytes": (frame(Kind.PING, bytes(7)), None),
    "a push by a client": (frame(Kind.PUSH_PROMISE, bytes(4) + b"\x82", END_HEADERS, 1), PROTOCOL_ERROR),
    "a stream of the server's": (head(2), PROTOCOL_ERROR),
    "a stream that was passed by": (head(5) + head(3), None),
    "data of a stream that is not open": (frame(Kind.DATA, b"x", 0, 1), PROTOCOL_ERROR),
    "another frame within a section": (head(1, flags=0) + frame(Kind.PING, bytes(8)), PROTOCOL_ERROR),
    "a frame of 16 MiB": (b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(5_000), FRAME_SIZE_ERROR),
    "a stream that depends on itself": (frame(Kind.PRIORITY, b"\0\0\0\x01\x10", 0, 1), None),
}


@pytest.mark.parametrize(("raw", "code"), BREACHES.values(), ids=BREACHES.keys())
async def test_a_breach_of_the_protocol_ends_the_connection_with_its_code(raw: bytes, code: int | None) -> None:
    async with attacking() as attack:
        attack.send(raw)

        said = await attack.goodbye()
        assert said is not None
        assert said in (range(1, 14) if code is None else (code,))
        await attack.spares_others()


async def test_a_window_that_overflows_costs_its_stream() -> None:
    async with attacking() as attack:
        attack.send(head(1, ("x-hold", "1"), over=False), window(1, 0x7FFFFFFF), head(3))

        assert await attack.reset_of(1) == FLOW_CONTROL_ERROR
        await attack.read(lambda seen: any(each[:2] == (Kind.HEADERS, 3) for each in seen))
        await attack.spares_others()


async def test_more_than_a_window_of_a_body_ends_the_connection() -> None:
    async with attacking(takes=False) as attack:
        attack.send(head(1, ("x-hold", "1"), over=False, method="POST"))
        attack.send(*(frame(Kind.DATA, bytes(16_384), 0, 1) for _ in range(40)))  # nobody takes it: 256 KiB is all

        assert await attack.goodbye() == FLOW_CONTROL_ERROR
        await attack.spares_others()


async def test_streams_beyond_the_limit_are_refused_unseen_and_may_be_tried_again() -> None:
    async with attacking() as attack:
        attack.send(*(head(2 * number + 1, ("x-hold", "1")) for number in range(101)))

        assert await attack.reset_of(201) == REFUSED
        assert attack.asked <= 100
        await attack.spares_others()


async def test_a_client_that_takes_nothing_holds_back_its_own_streams_and_a_bounded_part_of_their_answers() -> None:
    def pour(peer: Peer, event: events.Event) -> None:
        """Answer with more than any window, as far as it may."""
        if isinstance(event, events.RequestReceived):
            peer.h2.send_headers(event.stream_id, [(":status", "200")])
            is_small = peer.fields(event.stream_id).get("x-hold") is None
            while not is_small and (room := min(16_384, peer.h2.local_flow_control_window(event.stream_id))) > 0:
                peer.h2.send_data(event.stream_id, bytes(room))
            if is_small:
                peer.h2.send_data(event.stream_id, b"ok", end_stream=True)
            peer.flush()

    greet = PREFACE + setting(4, 0)
    async with attacking(pour, greet=greet) as attack:
        attack.send(*(head(2 * number + 1, ("x-hold", "1")) for number in range(20)))
        await attack.read(lambda seen: sum(kind == Kind.HEADERS for kind, _, _ in seen) == 20)

        assert not any(kind == Kind.DATA for kind, _, _ in attack.frames())
        for peer in attack.server.peers:
            for stream in peer.h2.streams:
                assert peer.h2.remote_flow_control_window(stream) >= 0
        assert sum(attack.guest.house._services.h2.streams.values()) == 20  # type: ignore[union-attr] # it is configured
        await attack.spares_others()


UPSTREAM_FLOODS = {
    "settings": frame(Kind.SETTINGS),
    "pings": frame(Kind.PING, bytes(8)),
    "goodbyes": frame(Kind.GOAWAY, (0x7FFFFFFF).to_bytes(4) + bytes(4)),
    "unknown": frame(0xEE),
    "empty data": frame(Kind.DATA, b"", 0, 1),
}


@pytest.mark.parametrize("flood", UPSTREAM_FLOODS.values(), ids=UPSTREAM_FLOODS.keys())
async def test_a_flood_from_an_upstream_is_a_502_or_a_break_and_its_connection_is_left(flood: bytes) -> None:
    def drown(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if peer.fields(event.stream_id).get("x-hold") is None:
                return ok(peer, event)
            peer.h2.send_headers(event.stream_id, [(":status", "200")])
            peer.flush()
            peer.write(flood * MANY)
        return None

    async with attacking(drown) as attack:
        attack.send(head(1, ("x-hold", "1")))
        await attack.read(
            lambda seen: any(each[:2] == (Kind.RST_STREAM, 1) for each in seen) or status_of(seen, 1) == 502
        )
        await attack.spares_others()


UPSTREAM_BREACHES = {
    "a push": frame(Kind.PUSH_PROMISE, (2).to_bytes(4) + b"\x82", END_HEADERS, 1),
    "continuations without end": frame(Kind.HEADERS, b"\x88", 0, 1)
    + frame(Kind.CONTINUATION, b"\0\x01x\x01y", 0, 1) * 5_000,
    "a window that overflows": window(0, 0x7FFFFFFF),
    "interim answers without end": b"".join(frame(Kind.HEADERS, b"\x08\x03103", END_HEADERS, 1) for _ in range(40)),
    "a stream of its own": frame(Kind.HEADERS, b"\x88", END_HEADERS, 2),
    "an answer before any field": frame(Kind.DATA, b"body", END_STREAM, 1),
}


@pytest.mark.parametrize("raw", UPSTREAM_BREACHES.values(), ids=UPSTREAM_BREACHES.keys())
async def test_an_upstream_that_breaks_the_protocol_is_a_502(raw: bytes) -> None:
    def breach(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if peer.fields(event.stream_id).get("x-hold") is None:
                return ok(peer, event)
            peer.write(raw)
        return None

    async with attacking(breach) as attack:
        attack.send(head(1, ("x-hold", "1")))
        seen = await attack.read(lambda seen: status_of(seen, 1) is not None)

        assert status_of(seen, 1) == 502
        await attack.spares_others()
