from __future__ import annotations

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.net.route import ProxyRoute
from moat.proxy.answering import Answering
from moat.proxy.flow import Passage
from moat.proxy.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, read_request, read_response
from moat.proxy.scrub import Scrub
from moat.proxy.telling import head_up, told, told_early

A = Authority("http", "a.example", 8080)


def up(*lines: str, proxy: ProxyRoute | None = None, upgrade: str = "") -> str:
    request = read_request("\r\n".join(("GET /x HTTP/1.1", "Host: a.example:8080", *lines)))
    passage = Passage(A, RequestHead("GET", A, "/x", Headers((("Accept", "*/*"),))), upgrade=upgrade)
    return head_up(passage, request, proxy).decode()


def test_a_request_leaves_with_the_agreed_host_and_its_own_framing() -> None:
    assert up() == "GET /x HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\n\r\n"
    assert up("Content-Length: 3").endswith("Content-Length: 3\r\n\r\n")
    assert up("Transfer-Encoding: chunked").endswith("Transfer-Encoding: chunked\r\n\r\n")


def test_an_upgrade_is_asked_for_only_as_it_was_judged() -> None:
    told_upgrade = up("Connection: Upgrade", "Upgrade: h2c, WebSocket", upgrade="websocket")

    assert told_upgrade.endswith("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert "pgrade" not in up("Connection: Upgrade", "Upgrade: h2c")


def test_a_proxy_gets_the_absolute_form_and_its_own_fields() -> None:
    text = up(proxy=ProxyRoute.parse("http://u:s3cr3t@proxy.example:3128", ()))

    assert text.startswith("GET http://a.example:8080/x HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in text


@pytest.mark.parametrize(
    ("lines", "version", "framing", "ending"),
    [
        (["Content-Length: 2"], "1.1", "length", b"Content-Length: 2\r\n\r\n"),
        ([], "1.1", CHUNKED.kind, b"Transfer-Encoding: chunked\r\n\r\n"),
        ([], "1.0", UNTIL_CLOSE.kind, b"Connection: close\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "1.0", UNTIL_CLOSE.kind, b"Connection: close\r\n\r\n"),
    ],
)
def test_a_client_gets_a_body_whose_end_it_can_tell(
    lines: list[str], version: str, framing: str, ending: bytes
) -> None:
    answer = told(read_response("\r\n".join(("HTTP/1.1 200 OK", *lines)), "GET"), version, may_keep=True)

    assert answer.framing.kind == framing
    assert answer.head.endswith(ending)


def test_a_client_is_told_when_its_connection_ends_and_never_of_http3() -> None:
    response = read_response('HTTP/1.1 204 No Content\r\nAlt-Svc: h3=":443"\r\nX: 1', "GET")
    answer = told(response, "1.1", may_keep=False)

    assert answer.framing is NO_BODY
    assert answer.head == b"HTTP/1.1 204 No Content\r\nX: 1\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("status", ["103 Early Hints", "101 Switching Protocols"])
def test_no_head_before_the_last_offers_http3(status: str) -> None:
    response = read_response(f'HTTP/1.1 {status}\r\nAlt-Svc: h3=":443"\r\nX: 1', "GET")

    assert told_early(response, None) == f"HTTP/1.1 {status}\r\nX: 1\r\n\r\n".encode()


def test_a_head_before_the_last_is_scrubbed_in_every_part() -> None:
    response = read_response("HTTP/1.1 101 s3cr3t-token\r\nX: s3cr3t-token", "GET")
    head = told_early(response, Answering(Scrub(["s3cr3t-token"]), True), [("Upgrade", "s3cr3t-token")])

    assert head == b"HTTP/1.1 101 [moat:redact\r\nX: [moat:redact\r\nUpgrade: [moat:redact\r\n\r\n"
