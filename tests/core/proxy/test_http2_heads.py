from __future__ import annotations

import pytest
from hpack.struct import NeverIndexedHeaderTuple
from moat.api.http import Authority, Headers, RequestHead
from moat.proxy.http1 import CHUNKED, NO_BODY, Framing, Malformed, end_to_end
from moat.proxy.http2_heads import (
    is_grpc,
    plain_fields,
    read_request,
    read_response,
    read_trailers,
    request_fields,
    response_fields,
)

A = Authority("https", "a.example", 443)
HEAD = ((":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y=1"))


def pairs(*extra: tuple[str, str], head: tuple[tuple[str, str], ...] = HEAD) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*head, *extra)]


def without(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in HEAD if pair[0] != name)


def test_a_request_is_a_value_like_any_other() -> None:
    request = read_request(pairs(("accept", "*/*"), ("x", "1"), ("x", "2")), is_over=True)

    assert (request.method, request.target, request.host, request.version) == ("POST", "/x?y=1", "a.example", "2")
    assert request.headers.items == (("accept", "*/*"), ("x", "1"), ("x", "2"))
    assert request.fields["x"] == ("1", "2")
    assert request.framing is NO_BODY


@pytest.mark.parametrize(
    ("extra", "is_over", "framing"),
    [((), False, CHUNKED), ((("content-length", "5"),), False, Framing("length", 5)),
     ((("content-length", "0"),), True, NO_BODY), ((), True, NO_BODY)],
    ids=["unknown length", "known length", "a length of nothing", "no body"],
)  # fmt: skip
def test_a_body_ends_where_its_length_or_the_stream_says(
    extra: tuple[tuple[str, str], ...], is_over: bool, framing: Framing
) -> None:
    assert read_request(pairs(*extra), is_over=is_over).framing == framing


def test_host_stands_in_for_authority_and_may_repeat_it() -> None:
    alone = read_request(pairs(("host", "a.example"), head=without(":authority")), is_over=True)
    both = read_request(pairs(("host", "A.example:443")), is_over=True)

    assert (alone.host, both.host) == ("a.example", "a.example")


def test_a_cookie_that_was_cut_into_crumbs_is_one_again() -> None:
    request = read_request(pairs(("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")), is_over=True)

    assert request.headers.get_all("cookie") == ("a=1; b=2",)
    assert request.fields["cookie"] == ("a=1; b=2",)


def test_te_trailers_is_passed_on() -> None:
    request = read_request(pairs(("te", "trailers")), is_over=True)

    assert end_to_end(request.headers, request.fields) == [("TE", "trailers")]


def test_connect_is_read_so_that_it_can_be_refused_with_a_status() -> None:
    request = read_request(pairs(head=((":method", "CONNECT"), (":authority", "a.example:22"))), is_over=False)

    assert (request.method, request.target) == ("CONNECT", "a.example:22")


@pytest.mark.parametrize(
    "fields",
    [
        pairs(("X-Upper", "1")),
        pairs(("a:b", "1")),
        pairs((":other", "1")),
        pairs(("x\r\ny", "1")),
        pairs(("x y", "1")),
        pairs(("", "1")),
        pairs(("x_y", "1")),
        pairs(("x\x00", "1")),
        pairs(("x\xff", "1")),
        pairs(("x", "1\r\ny: 2")),
        pairs(("x", "1\n")),
        pairs(("x", "1\x00")),
        pairs(("x", " 1")),
        pairs(("x", "1\t")),
        pairs(("x", "\x7f")),
        pairs(("transfer-encoding", "chunked")),
        pairs(("connection", "close")),
        pairs(("keep-alive", "1")),
        pairs(("proxy-connection", "x")),
        pairs(("upgrade", "websocket")),
        pairs(("http2-settings", "x")),
        pairs(("te", "gzip")),
        pairs(("te", "trailers"), ("te", "trailers")),
        pairs(("content-length", "1"), ("content-length", "1")),
        pairs(("content-length", "+1")),
        pairs(("content-length", "1, 1")),
        pairs(("host", "b.example")),
        pairs(("host", "a.example:444")),
        pairs(("host", "a@b")),
        pairs(("host", "a.example"), ("host", "a.example")),
        pairs(("x", "1"), (":path", "/")),
        pairs((":path", "/other")),
        pairs((":status", "200")),
        pairs((":protocol", "websocket")),
        pairs(*((f"x{number}", "1") for number in range(201))),
        pairs(head=without(":method")),
        pairs(head=without(":scheme")),
        pairs(head=without(":path")),
        pairs(head=without(":authority")),
        pairs(head=((":method", "GE T"), *HEAD[1:])),
        pairs(head=(HEAD[0], (":scheme", "http"), *HEAD[2:])),
        pairs(head=(*HEAD[:3], (":path", ""))),
        pairs(head=(*HEAD[:3], (":path", "x"))),
        pairs(head=(*HEAD[:3], (":path", "https://b.example/"))),
        pairs(head=(*HEAD[:3], (":path", "/a b"))),
        pairs(head=(*HEAD[:3], (":path", "/a HTTP/1.1\r\nx: y"))),
        pairs(head=((":method", "CONNECT"), *HEAD[1:])),
    ],
    ids=lambda fields: " ".join(repr(pair[0])[2:-1] for pair in fields[-2:]),
)
def test_what_would_be_something_else_in_http_1_is_malformed(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Malformed) as refused:
        read_request(fields, is_over=False)

    assert "b.example" not in str(refused.value)


def test_a_length_without_a_body_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_request(pairs(("content-length", "1")), is_over=True)


def test_grpc_metadata_may_have_underscores() -> None:
    request = read_request(pairs(("content-type", "application/grpc+proto"), ("x_y", "1")), is_over=False)

    assert is_grpc(request.fields)
    assert request.fields["x_y"] == ("1",)


def response(*fields: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return pairs(head=fields)


@pytest.mark.parametrize(
    ("method", "status", "framing", "told"),
    [("GET", "200", Framing("length", 5), "5"), ("HEAD", "200", NO_BODY, "5"), ("GET", "304", NO_BODY, "5"),
     ("GET", "103", NO_BODY, ""), ("GET", "204", NO_BODY, "")],
)  # fmt: skip
def test_the_body_of_a_response_is_what_method_and_status_allow(
    method: str, status: str, framing: Framing, told: str
) -> None:
    found = read_response(response((":status", status), ("content-length", "5")), method, is_over=False)

    assert found.framing == framing
    assert found.head.status == int(status)
    assert (found.head.headers.get("content-length") or "") == told


def test_a_response_of_unknown_length_ends_with_the_stream() -> None:
    assert read_response(response((":status", "200")), "GET", is_over=False).framing is CHUNKED


@pytest.mark.parametrize(
    ("fields", "is_over"),
    [
        (response(("x", "y")), False),
        (response((":status", "20")), False),
        (response((":status", "600")), False),
        (response((":status", "101")), False),
        (response((":status", "100")), True),
        (response((":status", "200"), (":path", "/")), False),
        (response((":status", "200"), ("transfer-encoding", "chunked")), False),
        (response((":status", "200"), ("connection", "close")), False),
        (response((":status", "200"), ("x", "1\r\ny: 2")), False),
        (response((":status", "200"), ("content-length", "5")), True),
    ],
)
def test_a_response_that_makes_no_sense_is_malformed(fields: list[tuple[bytes, bytes]], is_over: bool) -> None:
    with pytest.raises(Malformed):
        read_response(fields, "GET", is_over=is_over)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200"), ("GET", "304"), ("GET", "103")])
@pytest.mark.parametrize("lengths", [("-1",), ("5", "6"), ("",)])
def test_a_length_that_is_none_is_malformed_also_without_a_body(
    method: str, status: str, lengths: tuple[str, ...]
) -> None:
    pairs = response((":status", status), *(("content-length", length) for length in lengths))
    with pytest.raises(Malformed):
        read_response(pairs, method, is_over=False)


def test_trailers_keep_what_may_stand_there() -> None:
    found = read_trailers(response(("grpc-status", "0"), ("content-length", "3"), ("grpc-message", "")))

    assert found == [("grpc-status", "0"), ("grpc-message", "")]
    with pytest.raises(Malformed):
        read_trailers(response((":status", "200")))


def test_what_was_injected_is_kept_out_of_compression() -> None:
    headers = Headers.of([("accept", "x"), ("Authorization", "Bearer s3cr3t"), ("X-Key", "s3cr3t"), ("cookie", "c")])
    fields = request_fields(
        RequestHead("GET", A, "/", headers), A, Framing("length", 3), [("accept", "x"), ("cookie", "c")]
    )

    plain = [tuple(field) for field in fields if not isinstance(field, NeverIndexedHeaderTuple)]
    secret = [tuple(field) for field in fields if isinstance(field, NeverIndexedHeaderTuple)]
    assert plain[:5] == [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/"),
                         (b"accept", b"x")]  # fmt: skip
    assert secret[:3] == [(b"authorization", b"Bearer s3cr3t"), (b"x-key", b"s3cr3t"), (b"cookie", b"c")]
    assert (b"content-length", b"3") in secret


def test_names_go_out_in_lower_case() -> None:
    assert [tuple(field) for field in response_fields(200, [("Content-Type", "x")])] == [
        (b":status", b"200"),
        (b"content-type", b"x"),
    ]
    assert [tuple(field) for field in plain_fields([("Grpc-Status", "0")])] == [(b"grpc-status", b"0")]
