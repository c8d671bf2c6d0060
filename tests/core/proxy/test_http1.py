from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers
from moat.proxy.http1 import (
    CHUNKED,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    NO_BODY,
    UNTIL_CLOSE,
    Framing,
    Malformed,
    Request,
    Response,
    end_to_end,
    read_request,
    read_response,
    render_request,
    take_head,
)


def request(*lines: str, first: str = "GET / HTTP/1.1") -> Request:
    return read_request("\r\n".join((first, "Host: a.example", *lines)))


def response(*lines: str, first: str = "HTTP/1.1 200 OK", method: str = "GET") -> Response:
    return read_response("\r\n".join((first, *lines)), method)


def test_a_head_is_cut_off_once_it_is_whole() -> None:
    buffer = bytearray(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n")

    assert take_head(buffer) is None
    buffer += b"\r\nrest"
    assert take_head(buffer) == "GET / HTTP/1.1\r\nHost: a"
    assert buffer == b"rest"


def test_empty_lines_before_a_head_are_passed_over_whether_they_come_together_or_not() -> None:
    whole, pieces, found = bytearray(b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"), bytearray(), None

    for byte in bytes(whole):
        pieces.append(byte)
        found = found or take_head(pieces)

    assert take_head(whole) == found == "GET / HTTP/1.1"


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\nHost: a\n\n", b"x" * MAX_HEAD_BYTES], ids=["bare LF", "endless"])
def test_a_head_that_will_never_be_one_is_refused_at_once(head: bytes) -> None:
    with pytest.raises(Malformed):
        take_head(bytearray(head))


def test_a_request_head_is_read_whole() -> None:
    found = request("X-A:  b c \t", "X-A: d", first="PATCH /p?q=1 HTTP/1.1")

    assert (found.method, found.target, found.version, found.host) == ("PATCH", "/p?q=1", "1.1", "a.example")
    assert found.headers.items == (("Host", "a.example"), ("X-A", "b c"), ("X-A", "d"))
    assert found.fields["x-a"] == ("b c", "d")


@pytest.mark.parametrize(
    "first",
    ["GET /", "GET / HTTP/2.0", "GET  / HTTP/1.1", " GET / HTTP/1.1", "GET /\x00 HTTP/1.1", "GET /caf\xe9 HTTP/1.1",
     "G(T / HTTP/1.1", "GET / HTTP/1.1 ", "GET\t/ HTTP/1.1", ""],
)  # fmt: skip
def test_a_request_line_has_one_form(first: str) -> None:
    with pytest.raises(Malformed):
        request(first=first)


@pytest.mark.parametrize(
    "line",
    [
        "Host: a.example",
        "no colon",
        " folded",
        "\tfolded",
        "Na me: x",
        "Name : x",
        "N\x00: x",
        "X_Y: z",
        ": x",
        "A: b\rc",
        "A: b\nc",
        "A: \x00",
        "A: \x7f",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: \x0bchunked",
    ],
)
def test_a_field_that_two_readers_could_take_differently_is_refused(line: str) -> None:
    with pytest.raises(Malformed):
        request(line)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
)
def test_conflicting_lengths_are_refused_in_both_directions(lines: tuple[str, ...]) -> None:
    with pytest.raises(Malformed):
        request(*lines)
    with pytest.raises(Malformed):
        response(*lines)


def test_http_1_1_needs_a_host_and_1_0_does_not_and_has_no_chunks() -> None:
    with pytest.raises(Malformed):
        read_request("GET / HTTP/1.1")
    with pytest.raises(Malformed):
        read_request("GET / HTTP/1.1\r\nHost:")
    with pytest.raises(Malformed):
        read_request("GET / HTTP/1.0\r\nTransfer-Encoding: chunked")
    assert read_request("GET / HTTP/1.0").host == ""


def test_more_fields_than_anybody_sends_are_refused() -> None:
    with pytest.raises(Malformed):
        request(*(f"X-{number}: y" for number in range(MAX_FIELDS)))


def test_a_request_body_is_chunked_or_has_a_length_or_is_none() -> None:
    assert request().framing is NO_BODY
    assert request("Content-Length: 12").framing == Framing("length", 12)
    assert request("Transfer-Encoding: Chunked").framing is CHUNKED


@pytest.mark.parametrize(
    ("first", "method"),
    [
        ("HTTP/1.1 200 OK", "HEAD"),
        ("HTTP/1.1 204 No", "GET"),
        ("HTTP/1.1 304 Not", "GET"),
        ("HTTP/1.1 100 Go on", "POST"),
    ],
)
def test_some_answers_never_have_a_body_whatever_they_say(first: str, method: str) -> None:
    assert response("Content-Length: 12", first=first, method=method).framing is NO_BODY


def test_an_answer_without_length_ends_with_its_connection() -> None:
    assert response().framing is UNTIL_CLOSE
    assert not response().keeps_alive
    assert response("Content-Length: 0").keeps_alive
    assert not response("Content-Length: 0", "Connection: Close").keeps_alive
    assert not response("Content-Length: 0", first="HTTP/1.0 200 OK").keeps_alive


@pytest.mark.parametrize("first", ["HTTP/1.1 20 OK", "HTTP/1.1 600 x", "HTTP/2 200", "ICY 200 OK", "HTTP/1.1  200 OK"])
def test_a_status_line_has_one_form(first: str) -> None:
    with pytest.raises(Malformed):
        response(first=first)


def test_a_reason_may_be_missing_and_field_names_of_answers_may_have_underscores() -> None:
    found = response("X_Y: z", first="HTTP/1.1 200")

    assert (found.head.reason, found.head.headers.get("x_y")) == ("", "z")


def test_hop_by_hop_fields_stay_and_connection_cannot_drop_a_credential() -> None:
    found = request("Connection: X-Gone, Authorization, close", "X-Gone: 1", "Authorization: a", "Keep-Alive: 5",
                    "Proxy-Authorization: Basic x", "Proxy-Connection: y", "TE: trailers", "Accept: z")  # fmt: skip

    kept = end_to_end(found.headers, found.fields, "host")

    assert kept == [("Authorization", "a"), ("Accept", "z"), ("TE", "trailers")]


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True).filter(
    lambda name: name.lower() not in ("host", "content-length", "transfer-encoding")
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_what_is_written_is_read_back(pairs: list[tuple[str, str]]) -> None:
    buffer = bytearray(render_request("GET", "/x", [("Host", "a"), *pairs]))

    text = take_head(buffer)

    assert text is not None
    assert read_request(text).headers == Headers((("Host", "a"), *pairs))
    assert not buffer


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused_or_awaited(data: bytes) -> None:
    try:
        text = take_head(bytearray(data))
        if text is not None:
            read_request(text)
    except Malformed:
        pass


@pytest.mark.parametrize("first", ["HTTP/1.1 100 Continue", "HTTP/1.1 103 Early Hints", "HTTP/1.1 204 No Content"])
def test_a_status_without_a_body_loses_the_length_that_some_clients_would_wait_for(first: str) -> None:
    found = response("Content-Length: 5", "X: y", first=first)

    assert (found.framing, found.head.headers.items) == (NO_BODY, (("X", "y"),))


def test_a_length_that_tells_what_a_body_would_be_stays() -> None:
    unchanged = response("Content-Length: 5", first="HTTP/1.1 304 Not Modified")

    for found in (unchanged, response("Content-Length: 5", method="HEAD")):
        assert found.head.headers.items == (("Content-Length", "5"),)


@pytest.mark.timeout(20)  # searched from its beginning with each byte, it would take minutes
def test_the_longest_head_may_come_in_single_bytes_and_costs_little() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a.example\r\n" + b"X: y\r\n" * 190
    head += b"Y: " + b"z" * (MAX_HEAD_BYTES - len(head) - 8) + b"\r\n\r\n"
    buffer, taken = bytearray(), None
    for byte in head:
        assert taken is None
        buffer.append(byte)
        taken = take_head(buffer)

    assert taken is not None
    assert read_request(taken).host == "a.example"
