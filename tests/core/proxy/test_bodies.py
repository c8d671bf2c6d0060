from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.bodies import (
    MAX_CHUNKS,
    BodyReader,
    ChunkedReader,
    ChunkedWriter,
    PlainWriter,
    answer_reader,
    reader_for,
    writer_for,
)
from moat.proxy.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Malformed


def read(reader: BodyReader, *pieces: bytes) -> tuple[bytes, bytes]:
    """Return payload and what was left over."""
    buffer, payload = bytearray(), b""
    for piece in pieces:
        buffer += piece
        if not reader.is_done:
            payload += reader.take(buffer)
    return payload, bytes(buffer)


def test_a_length_takes_exactly_its_bytes_and_leaves_the_next_request() -> None:
    reader = reader_for(Framing("length", 5))

    assert read(reader, b"hel", b"loGET /") == (b"hello", b"GET /")
    assert reader.is_done


def test_a_length_that_breaks_off_may_not_end_there() -> None:
    reader = reader_for(Framing("length", 5))
    read(reader, b"hel")

    assert not reader.may_end_here


def test_no_body_is_done_before_it_begins() -> None:
    assert reader_for(NO_BODY).is_done
    assert reader_for(Framing("length", 0)).is_done


def test_until_close_takes_everything_and_may_end_anywhere() -> None:
    reader = reader_for(UNTIL_CLOSE)

    assert read(reader, b"a", b"b") == (b"ab", b"")
    assert reader.may_end_here
    assert not reader.is_done


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(min_value=1, max_value=7))
def test_chunks_are_read_back_however_they_are_cut(pieces: list[bytes], size: int) -> None:
    writer, reader = ChunkedWriter(), ChunkedReader()
    wire = b"".join(map(writer.encode, pieces)) + writer.finish([("X-Sum", "1")]) + b"next"
    cuts = [wire[at : at + size] for at in range(0, len(wire), size)]

    payload, rest = read(reader, *cuts)

    assert payload == b"".join(pieces)
    assert rest == b"next"
    assert reader.is_done
    assert reader.trailers == [("X-Sum", "1")]


@pytest.mark.parametrize(
    "wire",
    [
        b"5;ext=1\r\nhello\r\n",
        b"+5\r\nhello",
        b"0x5\r\nhello",
        b" 5\r\nhello",
        b"5 \r\nhello",
        b"\r\nhello",
        b"5\nhello\n",
        b"-1\r\n",
        b"g\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello!\r\n",
        b"1" * 40,
        b"ffffffffffffffff\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 4000,
    ],
)
def test_malformed_chunks_are_refused(wire: bytes) -> None:
    with pytest.raises(Malformed):
        read(ChunkedReader(), wire)


def test_trailers_cannot_bring_framing_or_identity_in() -> None:
    reader = ChunkedReader()
    read(reader, b"0\r\nContent-Length: 5\r\nAuthorization: x\r\nGrpc-Status: 0\r\n\r\n")

    assert reader.trailers == [("Grpc-Status", "0")]


def test_an_unfinished_chunk_may_not_end_there() -> None:
    reader = ChunkedReader()
    read(reader, b"5\r\nhel")

    assert not reader.may_end_here


def test_only_chunked_framing_changes_the_payload() -> None:
    assert isinstance(writer_for(CHUNKED), ChunkedWriter)
    for framing in (NO_BODY, UNTIL_CLOSE, Framing("length", 3)):
        writer = writer_for(framing)
        assert isinstance(writer, PlainWriter)
        assert writer.encode(b"abc") + writer.finish([("A", "b")]) == b"abc"


def test_a_chunk_that_comes_alone_is_read_like_one_in_pieces() -> None:
    reader, buffer = ChunkedReader(), bytearray(b"5\r\nhello\r\n")

    assert reader.take(buffer) == b"hello"
    assert not buffer
    assert read(reader, b"3\r\nend\r\n0\r\n\r\n") == (b"end", b"")
    assert reader.is_done


@pytest.mark.parametrize("chunk", [b"5\r\nhello!\n", b"5 \r\nhello\r\n", b"6\r\nhello\r\n\r", b"+5\r\nhello\r\n"])
def test_a_chunk_that_comes_alone_and_is_none_is_malformed(chunk: bytes) -> None:
    with pytest.raises(Malformed):
        read(ChunkedReader(), chunk)


EXTENDED = b'5;a=b\r\nhello\r\n3 ; c="d"\r\nyou\r\n0;last\r\n\r\nnext'


@pytest.mark.parametrize("size", [1, len(EXTENDED)], ids=["in single bytes", "at once"])
def test_what_extends_an_upstreams_chunks_is_dropped(size: int) -> None:
    reader = answer_reader(CHUNKED)

    pieces = [EXTENDED[at : at + size] for at in range(0, len(EXTENDED), size)]
    assert read(reader, *pieces) == (b"helloyou", b"next")
    assert reader.is_done


def test_what_extends_a_clients_chunks_is_malformed() -> None:
    with pytest.raises(Malformed):
        read(reader_for(CHUNKED), EXTENDED)


@pytest.mark.parametrize(
    "line", [b"5;a\nb\r\n", b"5 a\r\n", b";a\r\n", b"5;\x00\r\n", b"5;" + b"a" * 2_000 + b"\r\n"],
    ids=["a bare line feed", "no semicolon", "no size", "a control character", "without end"],
)  # fmt: skip
def test_an_extension_that_is_none_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        read(answer_reader(CHUNKED), line + b"hello\r\n0\r\n\r\n")


@pytest.mark.parametrize("cut", [1, 7, 100_000], ids=["in single bytes", "in sevens", "at once"])
def test_of_many_small_chunks_so_many_are_taken_at_once_and_none_is_lost(cut: int) -> None:
    wire = b"1\r\nx\r\n" * (3 * MAX_CHUNKS) + b"0\r\nX-Sum: 1\r\n\r\nnext"
    reader, buffer, takes = ChunkedReader(), bytearray(), [b""]
    for at in range(0, len(wire), cut):
        buffer += wire[at : at + cut]
        while not reader.is_done:
            takes.append(reader.take(buffer))
            if not reader.has_more:
                break

    assert b"".join(takes) == b"x" * (3 * MAX_CHUNKS)
    assert max(map(len, takes)) <= MAX_CHUNKS
    assert (reader.is_done, reader.has_more, bytes(buffer[-4:])) == (True, False, b"next")
    assert reader.trailers == [("X-Sum", "1")]


def test_a_reader_has_no_more_once_a_whole_chunk_came_alone() -> None:
    reader = ChunkedReader()
    assert len(reader.take(bytearray(b"1\r\nx\r\n" * MAX_CHUNKS))) == MAX_CHUNKS
    assert reader.has_more

    assert reader.take(bytearray(b"2\r\nyz\r\n")) == b"yz"
    assert not reader.has_more
