from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.http1 import Malformed
from moat.proxy.scrub import PROMPT_BYTES, Scrub, mask
from moat.proxy.spdy import DICTIONARY, MAX_CONTROL_BYTES, MAX_STREAMS, ScrubbedSpdy

SECRET = b"s3cr3t-of-the-stream"
HIDDEN = mask(len(SECRET))
SCRUB = Scrub([SECRET.decode()])
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
BEFORE = {SYN_STREAM: b"\0\0\0\2\0\0\0\0\0\0", SYN_REPLY: b"\0\0\0\1", HEADERS: b"\0\0\0\1"}
Frame = tuple[int, int, bytes]  # stream, flags, payload


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return stream.to_bytes(4) + bytes((flags,)) + len(payload).to_bytes(3) + payload


def control(kind: int, payload: bytes, version: int = 3) -> bytes:
    return (0x8000 | version).to_bytes(2) + kind.to_bytes(2) + len(payload).to_bytes(4) + payload


class Headers:
    """Writes header blocks as Go's servers do: one state for all, that begins with the dictionary."""

    def __init__(self, zdict: bytes = DICTIONARY) -> None:
        self._deflate = zlib.compressobj(9, zdict=zdict) if zdict else zlib.compressobj(9)

    def __call__(self, kind: int, *pairs: tuple[bytes, bytes]) -> bytes:
        plain = b"".join(len(each).to_bytes(4) + each for pair in pairs for each in pair)
        block = self._deflate.compress(len(pairs).to_bytes(4) + plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return control(kind, BEFORE[kind] + block)


def passed(*pieces: bytes) -> bytes:
    spdy = ScrubbedSpdy(lambda: SCRUB)
    return b"".join(map(spdy.feed, pieces)) + spdy.finish()


def frames_of(wire: bytes) -> Iterator[Frame]:
    """Yield the frames of data."""
    at = 0
    while at < len(wire):
        size = int.from_bytes(wire[at + 5 : at + 8])
        if not wire[at] & 0x80:
            yield int.from_bytes(wire[at : at + 4]), wire[at + 4], wire[at + 8 : at + 8 + size]
        at += 8 + size
    assert at == len(wire)


def streams_of(wire: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for stream, _, payload in frames_of(wire):
        found[stream] = found.get(stream, b"") + payload
    return found


def test_the_dictionary_is_the_one_whose_checksum_go_writes() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)  # golang.org/x/net, spdy: 0x78bb e3c6a7c2


def test_a_secret_in_a_frame_of_data_is_replaced_and_the_frame_keeps_its_length() -> None:
    assert passed(data(5, b"<" + SECRET + b">", 1)) == data(5, b"<" + HIDDEN + b">", 1)


def test_a_secret_is_found_across_the_frames_of_a_stream_with_others_between() -> None:
    sent = (data(1, b"a " + SECRET[:9]), data(3, b"else"), control(PING, b"\0\0\0\1"), data(1, SECRET[9:] + b" b", 1))

    assert streams_of(passed(*sent)) == {1: b"a " + HIDDEN + b" b", 3: b"else"}


def test_what_waits_holds_up_no_other_stream_and_no_control() -> None:
    spdy = ScrubbedSpdy(lambda: SCRUB)

    assert spdy.feed(data(1, b"see " + SECRET[:9])) == data(1, b"see ")
    assert spdy.feed(data(3, b"else") + control(PING, b"\0\0\0\1")) == data(3, b"else") + control(PING, b"\0\0\0\1")
    assert spdy.feed(data(1, b"!")) == data(1, SECRET[:9] + b"!")


def test_a_last_word_that_ends_like_the_beginning_of_a_secret_by_chance_leaves_at_once() -> None:
    few = SECRET[: PROMPT_BYTES - 1]
    spdy = ScrubbedSpdy(lambda: SCRUB)

    assert spdy.feed(data(1, b"$ " + few)) == data(1, b"$ " + few)
    assert spdy.feed(data(1, SECRET[len(few) :] + b"\n")) == data(1, HIDDEN[len(few) :] + b"\n")


def test_a_secret_that_comes_byte_by_byte_shows_no_more_than_those() -> None:
    seen = streams_of(passed(*(data(1, bytes((each,))) for each in b"<" + SECRET + b">")))[1]

    assert seen == b"<" + SECRET[: PROMPT_BYTES - 1] + HIDDEN[PROMPT_BYTES - 1 :] + b">"


@pytest.mark.parametrize("end", [data(1, b"", 1), control(RST_STREAM, b"\0\0\0\1\0\0\0\1"), b""],
                         ids=["its last frame", "a reset", "the connection's end"])  # fmt: skip
def test_what_waits_at_the_end_of_a_stream_was_no_secret(end: bytes) -> None:
    wire = passed(data(1, SECRET[:9]), end)

    assert streams_of(wire) == {1: SECRET[:9]}
    assert end == b"" or wire.endswith(end) or list(frames_of(wire)) == [(1, 1, SECRET[:9])]


def test_an_end_is_told_once_and_with_the_last_byte() -> None:
    assert passed(data(1, b"")) == data(1, b"")
    assert passed(data(1, b"", 1)) == data(1, b"", 1)
    wire = passed(*(bytes((each,)) for each in data(1, b"last", 1)))

    assert [flags for _, flags, _ in frames_of(wire)] == [0, 0, 0, 1]
    assert streams_of(wire) == {1: b"last"}


@pytest.mark.parametrize("zdict", [DICTIONARY, b""], ids=["as agreed", "without the dictionary"])
def test_headers_pass_as_they_came_however_they_are_cut(zdict: bytes) -> None:
    write = Headers(zdict)
    sent = b"".join((write(SYN_REPLY), write(HEADERS, (b"streamtype", b"error")), write(SYN_STREAM, (b":path", b"/"))))
    sent += control(SETTINGS, b"\0\0\0\0") + control(GOAWAY, b"\0" * 8) + control(WINDOW_UPDATE, b"\0" * 8)

    assert passed(sent) == sent
    assert passed(*(bytes((each,)) for each in sent)) == sent


@pytest.mark.parametrize("kind", [SYN_STREAM, SYN_REPLY, HEADERS])
def test_a_secret_in_headers_ends_the_connection_though_they_are_compressed(kind: int) -> None:
    write = Headers()
    spdy = ScrubbedSpdy(lambda: SCRUB)
    first = write(SYN_REPLY, (b"a", SECRET[:9]))  # the second block refers back to it
    second = write(kind, (b"x", b"<" + SECRET + b">"))

    assert spdy.feed(first) == first
    assert SECRET not in second
    with pytest.raises(Malformed, match="credential"):
        spdy.feed(second)


def test_a_secret_in_what_is_never_compressed_ends_the_connection_too() -> None:
    for kind in (PING, SETTINGS, GOAWAY, RST_STREAM):
        with pytest.raises(Malformed, match="credential"):
            passed(control(kind, SECRET))


@pytest.mark.parametrize(
    "wire",
    [control(PING, b"\0" * 4, version=2), control(5, b""), control(10, b""), data(1, b"x", 2),
     control(PING, b"\0" * (MAX_CONTROL_BYTES + 1)), control(SYN_REPLY, b"\0\0\0\1no zlib"),
     control(SYN_REPLY, b"\0\0\0\1" + zlib.compress(b"\0" * 300_000)),
     control(SYN_REPLY, b"\0\0\0\1" + zlib.compress(b"\0\0\0\0"))],
    ids=["version", "NOOP", "CREDENTIAL", "compressed data", "long", "not compressed", "a bomb", "an end of all"],
)  # fmt: skip
def test_what_no_server_sends_is_malformed(wire: bytes) -> None:
    with pytest.raises(Malformed):
        passed(wire)


def test_what_is_remembered_of_streams_is_bounded_and_who_waits_is_not_forgotten() -> None:
    few = [data(number, SECRET[:1]) for number in range(1, MAX_STREAMS + 3)]

    assert passed(*few) == b"".join(few)
    with pytest.raises(Malformed):
        passed(*(data(number, SECRET[:9]) for number in range(1, MAX_STREAMS + 3)))


def test_a_secret_that_the_run_learns_later_is_hidden_from_then_on() -> None:
    known, counts = [Scrub(())], list[int]()
    spdy = ScrubbedSpdy(lambda: known[-1], counts.append)
    before = spdy.feed(data(1, SECRET))
    known.append(SCRUB)

    assert before == data(1, SECRET)
    assert spdy.feed(data(1, SECRET)) == data(1, HIDDEN)
    assert counts == [1]


PARTS = st.lists(st.sampled_from([SECRET, SECRET[:7], SECRET[7:], b"s3", b"hello ", b"", b"x" * 130]), max_size=5)


@given(talk=st.lists(st.tuples(st.integers(1, 3), PARTS), max_size=6), cuts=st.lists(st.integers(1, 60), min_size=1))
def test_however_streams_are_framed_and_cut_no_more_than_a_beginning_is_seen(
    talk: list[tuple[int, list[bytes]]], cuts: list[int]
) -> None:
    sent = b"".join(data(stream, part) for stream, parts in talk for part in parts)
    seen = streams_of(passed(*_cut(sent, cuts)))

    for stream, payload in streams_of(sent).items():
        expected = bytearray(SCRUB.whole(payload))
        for start, _ in SCRUB.find(payload):
            shown = slice(start, start + PROMPT_BYTES - 1)
            came = seen[stream][shown]
            assert any(came == payload[shown][:count] + HIDDEN[count : len(came)] for count in range(PROMPT_BYTES))
            expected[shown] = came
        assert seen.get(stream, b"") == expected


def _cut(wire: bytes, cuts: list[int]) -> Iterable[bytes]:
    at, number = 0, 0
    while at < len(wire):
        size = cuts[number % len(cuts)]
        yield wire[at : at + size]
        at, number = at + size, number + 1
