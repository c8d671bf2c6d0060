from __future__ import annotations

import gzip

import pytest
from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.proxy.answering import Answering, plain_wanted, whole_wanted
from moat.proxy.bodies import reader_for
from moat.proxy.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Malformed, Response
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import PromptStream, Scrub, Spent, mask
from moat.proxy.spdy import ScrubbedSpdy
from moat.proxy.websocket import ScrubbedFrames

SECRET = "s3cr3t-of-the-answer"
MASK = mask(len(SECRET)).decode()
PACKED = gzip.compress(f"token: {SECRET}.".encode())


def an_answering(*, must_read: bool = True) -> Answering:
    return Answering(Scrub([SECRET]), must_read)


def a_response(*headers: tuple[str, str], status: int = 200, framing: Framing = CHUNKED) -> Response:
    fields = {name.lower(): (value,) for name, value in headers}
    return Response(ResponseHead(status, Headers(headers), "OK"), framing, fields)


def test_a_request_asks_for_an_answer_that_can_be_read() -> None:
    head = RequestHead("GET", Authority("https", "a.example", 443), "/", Headers((("accept-encoding", "gzip, br"),)))

    assert plain_wanted(head).headers.items == (("Accept-Encoding", "identity"),)
    packed = (("grpc-accept-encoding", "gzip"), ("Connect-Accept-Encoding", "br"), ("A-IM", "gzip"), ("te", "trailers"))
    assert plain_wanted(head.with_headers(Headers(packed))).headers.items == (
        packed[3],
        ("Accept-Encoding", "identity"),
    )


def test_and_for_all_of_it_where_a_credential_goes_out() -> None:
    fields = (("Range", "bytes=0-6"), ("IF-RANGE", '"1"'), ("X", "y"), ("Content-Range", "bytes 0-6/9"))
    head = RequestHead("GET", Authority("https", "a.example", 443), "/", Headers(fields))

    assert whole_wanted(head).headers.items == fields[2:]


@pytest.mark.parametrize(("must_read", "is_told"), [(True, False), (False, True)])
def test_ranges_are_offered_only_where_they_may_be_asked_for(must_read: bool, is_told: bool) -> None:
    told = an_answering(must_read=must_read).head(a_response(("accept-ranges", "bytes"), ("X", "y")).head)

    assert ("accept-ranges" in told.headers, "X" in told.headers) == (is_told, True)


def test_fields_reason_and_body_lose_the_secret_and_nothing_else() -> None:
    answering = an_answering()
    told, reader = answering.answer(
        Response(ResponseHead(200, Headers((("X-Echo", SECRET), ("ETag", '"1"'))), f"not {SECRET}"), CHUNKED, {}),
        reader_for(CHUNKED),
    )
    buffer = bytearray(f"19\r\ntoken: {SECRET[:18]}\r\n".encode())
    first = reader.take(buffer)
    buffer += f"3\r\n{SECRET[18:]}.\r\n0\r\nX-Sum: {SECRET}\r\n\r\nnext".encode()
    second = reader.take(buffer)

    assert told.head.headers.items == (("X-Echo", MASK), ("ETag", '"1"'))
    assert answering.scrubbed == 3
    assert told.head.reason == f"not {MASK}"
    assert told.framing is CHUNKED
    assert (first, second) == (b"token: ", f"{MASK}.".encode())
    assert reader.is_done
    assert reader.may_end_here
    assert reader.trailers == [("X-Sum", MASK)]
    assert buffer == b"next"


def test_a_known_length_stays_true() -> None:
    body = f"ends like {SECRET[:5]}".encode()
    framing = Framing("length", len(body))
    told, reader = an_answering().answer(a_response(("Content-Length", "15"), framing=framing), reader_for(framing))

    assert told.framing == framing
    assert told.head.headers.items == (("Content-Length", "15"),)
    assert reader.take(bytearray(body)) == body
    assert reader.is_done


def test_what_waits_comes_when_the_connection_ends_the_body() -> None:
    _, reader = an_answering().answer(a_response(framing=UNTIL_CLOSE), reader_for(UNTIL_CLOSE))

    assert reader.take(bytearray(b"a s3cr3t")) == b"a "
    assert not reader.is_done
    assert reader.end() == b"s3cr3t"


def test_an_encoded_body_is_decoded_and_its_length_forgotten() -> None:
    framing = Framing("length", len(PACKED))
    told, reader = an_answering().answer(
        a_response(("Content-Encoding", "gzip"), ("Content-Length", str(len(PACKED))), ("Vary", "*"), framing=framing),
        reader_for(framing),
    )
    out, buffer = b"", bytearray()
    for byte in PACKED:
        buffer.append(byte)
        out += reader.take(buffer)

    assert told.head.headers.items == (("Vary", "*"),)
    assert told.framing is UNTIL_CLOSE
    assert out == f"token: {MASK}.".encode()
    assert reader.is_done


def test_a_large_decoded_body_comes_in_pieces_until_it_is_done() -> None:
    packed = gzip.compress(b"x" * 2_000_000)
    framing = Framing("length", len(packed))
    _, reader = an_answering().answer(a_response(("Content-Encoding", "gzip"), framing=framing), reader_for(framing))
    sizes, buffer = [], bytearray(packed)
    while not reader.is_done:
        sizes.append(len(reader.take(buffer)))

    assert sum(sizes) == 2_000_000
    assert len(sizes) > 4


def test_an_encoded_body_that_breaks_off_is_malformed() -> None:
    framing = Framing("length", 20)
    _, reader = an_answering().answer(a_response(("Content-Encoding", "gzip"), framing=framing), reader_for(framing))

    with pytest.raises(Malformed):
        reader.take(bytearray(PACKED[:20]))


@pytest.mark.parametrize(
    ("status", "coding"), [(200, "dcb"), (200, "gzip, dcb"), (200, "gzip, gzip, gzip, gzip"), (206, "gzip")]
)
def test_what_cannot_be_read_is_not_delivered_after_a_credential_went_out(status: int, coding: str) -> None:
    with pytest.raises(Refusal) as refused:
        an_answering().head(a_response(("Content-Encoding", coding), status=status).head)

    assert (refused.value.status, refused.value.outcome) == (502, "failed")
    assert coding in refused.value.reason


def test_an_instance_manipulation_is_not_delivered_either() -> None:
    head = a_response(("IM", "gzip"), status=226).head

    with pytest.raises(Refusal, match="an instance manipulation, which cannot be searched"):
        an_answering().head(head)
    assert an_answering(must_read=False).head(head) == head


def test_a_refusal_quotes_no_coding_that_could_be_the_credential() -> None:
    with pytest.raises(Refusal) as refused:
        an_answering().head(a_response(("Content-Encoding", f"gzip, {SECRET.upper()}, {SECRET}")).head)

    assert "s3cr3t" not in refused.value.reason.lower()
    assert "'gzip, one that is not registered" in refused.value.reason


def test_what_cannot_be_read_passes_when_none_went_out() -> None:
    head = a_response(("Content-Encoding", "dcb"), ("Content-Length", "7")).head

    assert an_answering(must_read=False).head(head) == head


def test_a_part_of_a_plain_body_is_scrubbed_like_any() -> None:
    answering = an_answering()
    head = a_response(("Content-Range", "bytes 0-9/99"), status=206).head

    assert answering.head(head) == head
    assert answering.feed(SECRET.encode()) == MASK.encode()


@pytest.mark.parametrize("status", [200, 204, 304])
def test_a_head_without_a_body_keeps_its_coding_and_length(status: int) -> None:
    response = a_response(
        ("Content-Encoding", "dcb"), ("Content-Length", "99"), ("X", SECRET), status=status, framing=NO_BODY
    )
    told, reader = an_answering().answer(response, reader_for(NO_BODY))

    assert told.head.headers.items == (("Content-Encoding", "dcb"), ("Content-Length", "99"), ("X", MASK))
    assert reader.is_done


def test_early_fields_are_scrubbed() -> None:
    assert an_answering().trailers([("Link", f"<{SECRET}>")]) == [("Link", f"<{MASK}>")]


def test_what_the_run_spends_while_an_answer_lasts_is_looked_for_from_then_on() -> None:
    spent = Spent()
    spent.add([SECRET])
    answering = Answering(spent.scrub, True, spent)
    before = answering.feed(b"event: s3cr3t-renewed;")
    spent.add(["s3cr3t-renewed"])

    assert before == b"event: s3cr3t-renewed;"
    assert answering.feed(f"event: s3cr3t-renewed, {SECRET};".encode()) == b"event: %b, %b;" % (mask(14), MASK.encode())
    assert answering.trailers([("X", "s3cr3t-renewed")]) == [("X", mask(14).decode())]
    assert answering.begun().scrub is spent.scrub


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [("WebSocket", ScrubbedFrames), ("spdy/3.1", ScrubbedSpdy), ("SPDY/3.1", ScrubbedSpdy), ("foo/1", PromptStream)],
)
def test_whatever_a_connection_is_upgraded_to_is_searched(protocol: str, kind: type) -> None:
    sieve = an_answering().sieve(a_response(("Upgrade", protocol), status=101, framing=NO_BODY))

    assert isinstance(sieve, kind)


def test_bytes_of_a_protocol_that_nobody_knows_lose_the_secret_and_what_the_run_spends_later() -> None:
    spent = Spent()
    answering = Answering(Scrub([SECRET]), False, spent)
    spent.add([SECRET])
    sieve = answering.sieve(a_response(("Upgrade", "foo/1"), status=101, framing=NO_BODY))
    before = sieve.feed(f"\0{SECRET}s3cr3t-of-later".encode())
    spent.add(["s3cr3t-of-later"])

    assert before == f"\0{MASK}s3cr3t-of-later".encode()
    assert sieve.feed(b"s3cr3t-of-later") == mask(15)
    assert answering.scrubbed == 2


GRPC = ("content-type", "application/grpc")


def a_message(payload: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(payload).to_bytes(4) + payload


def test_messages_of_grpc_are_searched_each_by_itself_and_compressed_ones_too() -> None:
    answering = an_answering()
    response = a_response(GRPC, ("grpc-encoding", "gzip"), ("content-length", "99"), framing=Framing("length", 99))
    told, _ = answering.answer(response, reader_for(CHUNKED))

    assert (told.framing, "content-length" in told.head.headers) == (UNTIL_CLOSE, False)
    assert answering.is_decoding
    assert answering.feed(a_message(b"so s3cr3t")) == a_message(b"so s3cr3t")
    assert answering.feed(a_message(PACKED, 1)) == a_message(f"token: {MASK}.".encode())
    assert (answering.finish(), answering.scrubbed) == (b"", 1)


def test_messages_that_are_not_compressed_leave_a_known_length_true() -> None:
    answering = an_answering()
    response = a_response(GRPC, ("content-length", "14"), framing=Framing("length", 14))
    told, reader = answering.answer(response, reader_for(response.framing))

    assert told.framing == response.framing
    assert reader.take(bytearray(a_message(b"so s3cr3t"))) == a_message(b"so s3cr3t")
    assert reader.is_done


@pytest.mark.parametrize("must_read", [True, False])
def test_messages_compressed_in_a_way_that_nobody_knows_are_refused_where_a_credential_went_out(
    must_read: bool,
) -> None:
    answering = an_answering(must_read=must_read)
    response = a_response(GRPC, ("grpc-encoding", "snappy"))

    if must_read:
        with pytest.raises(Refusal, match="cannot be searched"):
            answering.answer(response, reader_for(CHUNKED))
    else:
        answering.answer(response, reader_for(CHUNKED))
        assert answering.feed(a_message(b"\0packed", 1)) == a_message(b"\0packed", 1)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "encoded"])
def test_of_very_many_messages_so_many_are_searched_at_once_and_none_is_lost(*, packed: bool) -> None:
    sent = a_message(b"") * 20_000 + a_message(SECRET.encode())
    body = gzip.compress(sent) if packed else sent
    coding = (("content-encoding", "gzip"),) if packed else ()
    inner = reader_for(Framing("length", len(body)))
    _, reader = an_answering().answer(a_response(GRPC, *coding, framing=Framing("length", len(body))), inner)

    buffer, pieces = bytearray(body), list[bytes]()
    while not reader.is_done:
        pieces.append(reader.take(buffer))
        assert reader.is_done or reader.has_more

    assert b"".join(pieces) == a_message(b"") * 20_000 + a_message(mask(len(SECRET)))
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= 8_192 + len(SECRET)
