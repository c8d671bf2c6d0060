from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers, ResponseHead
from moat.proxy.http1 import NO_BODY, Malformed, Response
from moat.proxy.scrub import Scrub, mask
from moat.proxy.websocket import MAX_WAITING, ScrubbedFrames, check_extensions, is_websocket

SECRET = "s3cr3t-of-the-socket"
SCRUB = Scrub([SECRET])
TEXT, MORE, BINARY, CLOSE, PING, PONG = 1, 0, 2, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, bits: int = 0, mask_bit: int = 0) -> bytes:
    first = opcode | bits | (0x80 if final else 0)
    if len(payload) < 126:
        return bytes((first, mask_bit | len(payload))) + payload
    size = 2 if len(payload) < 65_536 else 8
    return bytes((first, mask_bit | (126 if size == 2 else 127))) + len(payload).to_bytes(size) + payload


def passed(*pieces: bytes) -> bytes:
    frames = ScrubbedFrames(lambda: SCRUB)
    return b"".join(map(frames.feed, pieces)) + frames.finish()


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_a_secret_in_a_frame_is_replaced_and_the_frame_keeps_its_length(opcode: int) -> None:
    sent = frame(b"<" + SECRET.encode() + b">", opcode)

    assert passed(sent) == frame(b"<" + mask(len(SECRET)) + b">", opcode)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 70_000])
def test_frames_of_every_length_pass_as_they_came(size: int) -> None:
    sent = frame(b"x" * size) + frame(b"after")

    assert passed(sent) == sent


def test_a_secret_is_found_across_the_frames_of_a_message_with_a_ping_between() -> None:
    sent = (frame(b"a " + SECRET[:5].encode(), TEXT, final=False), frame(b"?", PING),
            frame(SECRET[5:9].encode(), MORE, final=False), frame(SECRET[9:].encode() + b" b", MORE))  # fmt: skip
    hidden = mask(len(SECRET))

    assert passed(*sent) == (
        frame(b"a " + hidden[:5], TEXT, final=False)
        + frame(b"?", PING)
        + frame(hidden[5:9], MORE, final=False)
        + frame(hidden[9:] + b" b", MORE)
    )


def test_messages_are_bodies_of_their_own_and_nothing_waits_at_the_end_of_one() -> None:
    frames = ScrubbedFrames(lambda: SCRUB)
    first, second = frame(SECRET[:9].encode()), frame(SECRET[9:].encode())

    assert frames.feed(first) == first
    assert frames.feed(second) == second


@pytest.mark.parametrize("more", [frame(b"", PING), frame(b"", MORE, final=False)], ids=["pings", "nothing"])
def test_what_waits_behind_the_beginning_of_a_secret_is_bounded(more: bytes) -> None:
    frames = ScrubbedFrames(lambda: SCRUB)
    frames.feed(frame(b"s3c", TEXT, final=False))

    with pytest.raises(Malformed):
        frames.feed(more * (MAX_WAITING + 1))


def test_no_number_of_frames_is_too_many_where_nothing_waits() -> None:
    sent = frame(b"x", TEXT, final=False) + (frame(b"", MORE, final=False) + frame(b"", PING)) * (MAX_WAITING + 1)

    assert passed(sent) == sent


def test_what_begins_like_a_secret_waits_and_leaves_in_order() -> None:
    frames = ScrubbedFrames(lambda: SCRUB)

    assert frames.feed(frame(b"see s3c", TEXT, final=False)) == frame(b"see s3c", TEXT, final=False)[:-3]
    assert frames.feed(frame(b"!", PING)) == b""
    assert frames.feed(frame(b"ond", MORE)) == b"s3c" + frame(b"!", PING) + frame(b"ond", MORE)


@given(
    parts=st.lists(st.sampled_from([SECRET, SECRET[:7], SECRET[7:], "s3", "hello ", "", "x" * 130]), max_size=6),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    size=st.integers(1, 50),
)
def test_however_a_message_is_framed_and_cut_the_payload_is_the_same(
    parts: list[str], cuts: list[int], size: int
) -> None:
    body = "".join(parts).encode()
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        cut = cuts[len(pieces) % len(cuts)]
        pieces.append(body[at : at + cut])
        at += cut
    pieces = pieces or [b""]
    sent = b"".join(
        frame(piece, MORE if number else TEXT, final=number == len(pieces) - 1)
        + (frame(b"p", PING) if number % 2 else b"")
        for number, piece in enumerate(pieces)
    )
    seen = passed(*(sent[at : at + size] for at in range(0, len(sent), size)))
    stream = SCRUB.stream()
    clean = stream.feed(body) + stream.finish()

    assert len(seen) == len(sent)
    assert payload_of(seen) == clean
    assert SECRET.encode() not in seen


def payload_of(data: bytes) -> bytes:
    out, at = b"", 0
    while at < len(data):
        size = data[at + 1]
        head = 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head])
        if data[at] & 0x0F in (TEXT, MORE):
            out += data[at + head : at + head + size]
        at += head + size
    return out


@pytest.mark.parametrize(
    "sent",
    [frame(b"x", bits=0x40), frame(b"x", bits=0x10), frame(b"x", 3), frame(b"x", 11), frame(b"x", mask_bit=0x80),
     frame(b"x" * 126, PING), frame(b"x", PING, final=False)],
    ids=["compressed", "reserved", "opcode", "control", "masked", "long ping", "ping in parts"],
)  # fmt: skip
def test_what_no_server_sends_is_malformed(sent: bytes) -> None:
    with pytest.raises(Malformed):
        passed(sent)


def test_a_secret_that_the_run_learns_later_is_hidden_from_the_next_message_on() -> None:
    known = [Scrub(())]
    frames = ScrubbedFrames(lambda: known[-1])
    before = frames.feed(frame(SECRET.encode()))
    known.append(SCRUB)

    assert before == frame(SECRET.encode())
    assert frames.feed(frame(SECRET.encode())) == frame(mask(len(SECRET)))


def test_what_breaks_off_is_passed_on_to_its_last_byte() -> None:
    sent = frame(b"a s3cr3t", TEXT, final=False) + frame(b"x" * 200, MORE)[:3]

    assert passed(sent) == sent


def test_extensions_that_were_not_offered_are_malformed() -> None:
    agreed = (("Upgrade", "WebSocket"), ("Sec-WebSocket-Extensions", "permessage-deflate"))
    response = Response(ResponseHead(101, Headers(agreed)), NO_BODY, {name.lower(): (each,) for name, each in agreed})

    assert is_websocket(response)
    assert not is_websocket(Response(ResponseHead(101), NO_BODY, {"upgrade": ("spdy/3.1",)}))
    with pytest.raises(Malformed):
        check_extensions(response)
