"""Which change of protocol is asked for, and which 101 is one."""

from __future__ import annotations

import pytest
from moat.api.http import ResponseHead
from moat.proxy.http1 import NO_BODY, Malformed, Response, read_request
from moat.proxy.refusal import Refusal
from moat.proxy.upgrade import check_read, check_switched, offered

UP = "Connection: keep-alive, Upgrade"


def asked(*lines: str, method: str = "GET", version: str = "1.1") -> str:
    return offered(read_request("\r\n".join((f"{method} / HTTP/{version}", "Host: a.example", *lines))))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((UP, "Upgrade: websocket"), "websocket"),
        ((UP, "Upgrade: WebSocket"), "WebSocket"),
        ((UP, "Upgrade: SPDY/3.1"), "SPDY/3.1"),
        ((UP, "Upgrade: SPDY/3.1", "Content-Length: 0"), "SPDY/3.1"),
        ((UP, "Upgrade: h2c, websocket"), "websocket"),
        ((UP, "Upgrade: foo/1", "Upgrade: websocket"), "websocket"),
        ((UP, "Upgrade: foo/1, bar"), "foo/1"),
        ((UP, "Upgrade: h2c"), ""),
        ((UP, "Upgrade: h2c, h2c"), ""),
        ((UP, "Upgrade: HTTP/2.0, TLS/1.2, h2c/14"), ""),
        ((UP, 'Upgrade: "h2c", a b, /1, foo/'), ""),
        ((UP, "Upgrade:"), ""),
        ((UP, "Upgrade: websocket", "Content-Length: 1"), ""),
        ((UP, "Upgrade: websocket", "Transfer-Encoding: chunked"), ""),
        (("Connection: notupgrade", "Upgrade: websocket"), ""),
        (("Upgrade: websocket",), ""),
    ],
)
def test_one_protocol_is_asked_for_and_never_one_that_carries_requests(lines: tuple[str, ...], found: str) -> None:
    assert asked(*lines) == found


def test_a_websocket_begins_with_get_and_nothing_changes_in_http_1_0() -> None:
    assert asked(UP, "Upgrade: websocket", method="POST") == ""
    assert asked(UP, "Upgrade: spdy/3.1", method="POST") == "spdy/3.1"
    assert asked(UP, "Upgrade: websocket", version="1.0") == ""


def test_what_nobody_can_read_is_refused_only_where_it_must_be_read() -> None:
    for protocol, why in (("", "why"), ("websocket", "why"), ("SPDY/3.1", "why"), ("foo/1", "")):
        check_read(protocol, why)

    with pytest.raises(Refusal) as caught:
        check_read("foo/1", "a rule says so")
    assert (caught.value.status, caught.value.kind, caught.value.keeps) == (403, "upgrade", True)
    assert "foo/1" in caught.value.reason
    assert "a rule says so" in caught.value.reason


@pytest.mark.parametrize(
    ("protocol", "named", "problem"),
    [
        ("websocket", ("WebSocket",), ""),
        ("SPDY/3.1", ("spdy/3.1",), ""),
        ("", ("websocket",), "unasked"),
        ("websocket", ("h2c",), "another protocol"),
        ("websocket", ("websocket, h2c",), "another protocol"),
        ("websocket", ("websocket", "h2c"), "another protocol"),
        ("websocket", (), "another protocol"),
    ],
)
def test_a_101_is_the_change_that_was_asked_for_or_malformed(
    protocol: str, named: tuple[str, ...], problem: str
) -> None:
    response = Response(ResponseHead(101), NO_BODY, {"upgrade": named} if named else {})
    if not problem:
        return check_switched(protocol, response)
    with pytest.raises(Malformed, match=problem):
        check_switched(protocol, response)
