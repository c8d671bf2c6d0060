from __future__ import annotations

from collections.abc import Iterable

import pytest
from hpack import Encoder
from hpack.struct import HeaderTuple
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.http1 import Malformed
from moat.proxy.http2 import (
    CALM,
    NO_ERROR,
    PROTOCOL_ERROR,
    WINDOW_BYTES,
    Event,
    Farewell,
    Gone,
    Head,
    Http2,
    Opened,
    Payload,
)
from moat.proxy.http2_frames import FLOOD_BURST, FLOOD_PER_S, PREFACE

REQUEST = ((":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/"))
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
BEGIN = PREFACE + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))


def fields(*pairs: tuple[str, str]) -> list[HeaderTuple]:
    return [HeaderTuple(name.encode(), value.encode()) for name, value in pairs]


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def block(*pairs: tuple[str, str]) -> bytes:
    return bytes(Encoder().encode(fields(*(pairs or REQUEST))))


def kinds(data: bytes) -> list[tuple[int, int]]:
    """Return kind and stream of each frame."""
    found = []
    while data:
        found.append((data[3], int.from_bytes(data[5:9])))
        data = data[9 + int.from_bytes(data[:3]) :]
    return found


def a_server() -> Http2:
    server = Http2(is_client=False)
    server.receive(BEGIN)
    server.outgoing()
    return server


def a_pair() -> tuple[Http2, Http2]:
    client, server = Http2(is_client=True), Http2(is_client=False)
    carry(client, server)
    return client, server


def carry(client: Http2, server: Http2) -> tuple[list[Event], list[Event]]:
    """Carry bytes both ways until nothing moves; return what client and server saw."""
    seen: tuple[list[Event], list[Event]] = ([], [])
    moved = True
    while moved:
        up, down = client.outgoing(), server.outgoing()
        moved = bool(up or down)
        seen[1].extend(server.receive(up))
        seen[0].extend(client.receive(down))
    return seen


def heads_and_payloads(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Opened)]


def test_request_and_response_with_bodies_and_trailers_cross() -> None:
    client, server = a_pair()
    stream = client.open(fields(*REQUEST), is_over=False)
    client.data(stream, b"up")
    client.head(stream, fields(("x-sum", "1")), is_over=True)
    _, seen = carry(client, server)
    server.head(stream, fields((":status", "103")))
    server.head(stream, fields((":status", "200")))
    server.data(stream, b"down")
    server.head(stream, fields(("grpc-status", "0")), is_over=True)
    answered, _ = carry(client, server)

    assert [type(event) for event in heads_and_payloads(seen)] == [Head, Payload, Head]
    assert [event.kind for event in answered if isinstance(event, Head)] == ["interim", "response", "trailers"]
    assert [event.data for event in answered if isinstance(event, Payload)] == [b"down"]
    assert heads_and_payloads(answered)[-1] == Head(stream, "trailers", ((b"grpc-status", b"0"),), True)


def test_a_stream_may_send_a_window_and_more_only_when_its_reader_has_taken() -> None:
    client, server = a_pair()
    stream = client.open(fields(*REQUEST), is_over=False)
    sent = 0
    while room := client.room(stream):
        client.data(stream, bytes(room))
        sent += room
        carry(client, server)
    server.took(stream, WINDOW_BYTES // 2 - 1)
    carry(client, server)
    before = client.room(stream)
    server.took(stream, 1)
    carry(client, server)

    assert sent == WINDOW_BYTES
    assert (before, client.room(stream) > 0) == (0, True)


def test_readers_that_take_nothing_do_not_stop_other_streams() -> None:
    client, server = a_pair()
    for _ in range(90):  # 22 MiB, more than the connection's window
        stream = client.open(fields(*REQUEST), is_over=False)
        while room := client.room(stream):
            client.data(stream, bytes(room))
            carry(client, server)

    last = client.open(fields(*REQUEST), is_over=False)
    assert client.room(last) > 0


def test_padding_is_given_back_by_itself() -> None:
    server = a_server()
    server.receive(frame(HEADERS, block(), 4, 1))
    for _ in range(600):
        server.receive(frame(DATA, b"\xffx" + bytes(255), 8, 1))

    assert (WINDOW, 1) in kinds(server.outgoing())


def test_goodbye_lets_open_streams_go_on() -> None:
    client, server = a_pair()
    stream = client.open(fields(*REQUEST), is_over=True)
    carry(client, server)
    server.goodbye()
    server.head(stream, fields((":status", "200")), is_over=True)
    seen, _ = carry(client, server)

    assert Farewell(stream, NO_ERROR) in seen
    assert any(isinstance(event, Head) for event in seen)


def test_a_reset_reaches_the_other_side_once() -> None:
    client, server = a_pair()
    stream = client.open(fields(*REQUEST), is_over=False)
    carry(client, server)
    client.reset(stream, 8)
    client.reset(stream, 8)
    _, seen = carry(client, server)
    server.reset(stream, 8)

    assert seen == [Gone(stream, 8)]
    assert server.outgoing() == b""


def test_a_wrong_content_length_does_not_end_the_connection() -> None:
    server = a_server()
    events = server.receive(frame(HEADERS, block(*REQUEST, ("content-length", "1")), 4, 1) + frame(DATA, b"four", 0, 1))

    assert [type(event) for event in events] == [Head, Payload]


def test_malformed_fields_do_not_end_the_connection() -> None:
    server = a_server()
    events = server.receive(frame(HEADERS, block(*REQUEST, ("Bad Name", "\r\n"), ("connection", "x")), 5, 1))

    assert isinstance(events[0], Head)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "begin"),
        (PREFACE + frame(PING, bytes(8)), "SETTINGS"),
        (PREFACE + frame(SETTINGS, b"", 1), "SETTINGS"),
        (BEGIN + b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", "16 KiB"),
        (BEGIN + frame(PUSH, bytes(4), 4, 1), "push"),
        (BEGIN + frame(CONTINUATION, b"", 4, 1), "rules"),
        (BEGIN + frame(HEADERS, block(), 0, 1) + frame(DATA, b"x", 0, 1), "rules"),
        (BEGIN + frame(HEADERS, block(), 0, 1) + frame(CONTINUATION, b"", 0, 1) * 9, "too long"),
        (BEGIN + frame(HEADERS, bytes(16_000), 0, 1) + frame(CONTINUATION, bytes(16_000), 0, 1) * 5, "too long"),
        (BEGIN + frame(HEADERS, block(), 4, 2), "rules"),
        (BEGIN + frame(HEADERS, b"\xff\xff\xff\xff\xff\xff", 5, 1), "rules"),
        (BEGIN + frame(DATA, b"x", 0, 1), "rules"),
        (BEGIN + frame(SETTINGS, b"\x00\x04\xff\xff\xff\xff"), "rules"),
        (BEGIN + frame(SETTINGS, b"\x00", 0), "rules"),
        (BEGIN + frame(WINDOW, b"\x00\x00\x00\x00"), "rules"),
        (BEGIN + frame(WINDOW, b"\x7f\xff\xff\xff") * 2, "rules"),
        (BEGIN + frame(PING, bytes(7)), "rules"),
        (BEGIN + frame(GOAWAY, bytes(4)), "rules"),
        (BEGIN + frame(GOAWAY, bytes(8), 0, 1), "rules"),
        (BEGIN + frame(PRIORITY, b"\x00\x00\x00\x01\x00", 0, 1), "rules"),
        (BEGIN + frame(HEADERS, block(*REQUEST, ("content-length", "+1")), 5, 1), "rules"),
    ],
    ids=["HTTP/1.1", "PING first", "an ACK first", "a frame too long", "a push", "a stray CONTINUATION",
         "DATA in a field section", "many CONTINUATIONs", "a long field section", "an even stream", "broken HPACK",
         "DATA before HEADERS", "a window too large", "a setting cut off", "a window of nothing", "a window too far",
         "a short PING", "a short GOAWAY", "GOAWAY on a stream", "a stream that waits for itself", "a doubtful length"],
)  # fmt: skip
def test_what_breaks_the_rules_ends_the_connection_with_goaway(data: bytes, reason: str) -> None:
    server = Http2(is_client=False)
    with pytest.raises(Malformed, match=reason):
        server.receive(data)

    if data.startswith(PREFACE):
        assert kinds(server.outgoing())[-1] == (GOAWAY, 0)


def test_a_field_section_that_unpacks_to_more_than_64_kib_ends_the_connection() -> None:
    encoder = Encoder()
    first = bytes(encoder.encode(fields(*REQUEST, ("x", "y" * 4000))))
    bomb = first + bytes((0xBE,)) * 100  # the last entry of the table, a hundred times
    server = a_server()

    with pytest.raises(Malformed):
        server.receive(frame(HEADERS, bomb, 5, 1))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def flooded(kind: int, payload: bytes, stream: int = 0, flags: int = 0) -> None:
    """Send more frames of a kind than are let pass."""
    server = Http2(is_client=False, clock=Clock())
    server.receive(BEGIN + frame(HEADERS, block(), 4, 1))
    for _ in range(FLOOD_BURST + 1):
        server.receive(frame(kind, payload, flags, stream))


@pytest.mark.parametrize(
    ("kind", "payload", "stream"),
    [(PING, bytes(8), 0), (SETTINGS, b"", 0), (PRIORITY, bytes(4) + b"\x01", 3), (DATA, b"", 1), (RESET, bytes(4), 1),
     (0x42, b"what", 0)],
    ids=["PING", "SETTINGS", "PRIORITY", "empty DATA", "RST_STREAM", "unknown frames"],
)  # fmt: skip
def test_a_flood_ends_the_connection(kind: int, payload: bytes, stream: int) -> None:
    with pytest.raises(Malformed, match="flood"):
        flooded(kind, payload, stream)


def test_a_flood_of_streams_that_are_reset_at_once_ends_the_connection() -> None:
    server = Http2(is_client=False, clock=Clock())
    server.receive(BEGIN)
    flood = [frame(HEADERS, block(), 5, number) + frame(RESET, bytes(4), 0, number)
             for number in range(1, 2 * FLOOD_BURST + 3, 2)]  # fmt: skip
    with pytest.raises(Malformed, match="flood"):
        server.receive(b"".join(flood))

    assert CALM.to_bytes(4) in server.outgoing()


def test_a_flood_for_streams_that_are_over_ends_the_connection() -> None:
    server = Http2(is_client=False, clock=Clock())
    server.receive(BEGIN + frame(HEADERS, block(), 4, 1))
    server.reset(1, 8)
    with pytest.raises(Malformed, match="flood"):
        server.receive(frame(DATA, b"x", 0, 1) * (FLOOD_BURST + 1))


def test_what_comes_slowly_is_no_flood() -> None:
    clock = Clock()
    server = Http2(is_client=False, clock=clock)
    server.receive(BEGIN)
    for _ in range(3 * FLOOD_BURST):
        clock.now += 1 / FLOOD_PER_S
        server.receive(frame(PING, bytes(8)))

    assert server.outgoing().endswith(frame(PING, bytes(8), 1))


def test_a_peer_cannot_make_us_remember_large_tables() -> None:
    server = a_server()
    server.receive(frame(SETTINGS, b"\x00\x01\x7f\xff\xff\xff") + frame(HEADERS, block(), 5, 1))
    server.outgoing()
    server.head(1, fields((":status", "200")), is_over=True)

    assert b"\x3f\xe1\x1f" in server.outgoing()  # RFC 7541 §6.3: the table's size goes back to 4,096


TRAFFIC = (
    BEGIN
    + frame(HEADERS, block()[:3], 0, 1)
    + frame(CONTINUATION, block()[3:], 4, 1)
    + frame(DATA, b"x" * 300, 0, 1)
    + frame(PING, bytes(8))
    + frame(HEADERS, block(), 5, 3)
    + frame(DATA, b"y" * 30, 1, 1)
    + frame(WINDOW, bytes((0, 0, 1, 0)))
    + frame(RESET, bytes((0, 0, 0, 8)), 0, 3)
    + frame(GOAWAY, bytes(8))
)


@given(st.lists(st.integers(1, 200), max_size=30))
def test_however_the_bytes_are_split_the_events_and_answers_are_the_same(sizes: list[int]) -> None:
    whole = Http2(is_client=False)
    split = Http2(is_client=False)
    data, found = TRAFFIC, []
    for size in (*sizes, len(TRAFFIC)):
        found += split.receive(data[:size])
        data = data[size:]

    assert found == whole.receive(TRAFFIC)
    assert split.outgoing() == whole.outgoing()


@given(st.lists(st.tuples(st.integers(0, 11), st.binary(max_size=40), st.integers(0, 255), st.integers(0, 5))))
def test_no_frames_raise_anything_but_malformed(frames: list[tuple[int, bytes, int, int]]) -> None:
    for server in (Http2(is_client=False), Http2(is_client=True)):
        try:
            server.receive(BEGIN if not server._is_client else BEGIN[len(PREFACE) :])
            server.receive(b"".join(frame(kind, payload, flags, stream) for kind, payload, flags, stream in frames))
        except Malformed:
            continue


def test_resets_that_the_peer_provokes_count_like_its_own() -> None:
    server = Http2(is_client=False, clock=Clock())
    server.receive(BEGIN)
    provoked = [frame(HEADERS, block(), 5, number) + frame(WINDOW, (2**31 - 1).to_bytes(4), 0, number)
                for number in range(1, 2 * FLOOD_BURST + 3, 2)]  # fmt: skip
    with pytest.raises(Malformed, match="flood"):
        server.receive(b"".join(provoked))
    assert CALM.to_bytes(4) in server.outgoing()

    another = Http2(is_client=False, clock=Clock())
    for _ in range(FLOOD_BURST):
        another.blame()
    with pytest.raises(Malformed, match="flood"):
        another.blame()


def test_a_server_cannot_open_streams() -> None:
    client = Http2(is_client=True)
    with pytest.raises(Malformed, match="push"):
        client.receive(frame(SETTINGS, b"") + frame(HEADERS, b"\x88", 5, 2))

    assert PROTOCOL_ERROR.to_bytes(4) in client.outgoing()
