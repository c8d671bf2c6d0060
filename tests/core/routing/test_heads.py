from __future__ import annotations

import pytest
from moat.routing.heads import BadHead, answer_down, answer_of_ours, read_answer, read_request, request_up


def a_head(*lines: str, start: str = "GET /a?b=c HTTP/1.1") -> bytes:
    return "\r\n".join((start, *lines, "", "")).encode("latin-1")


def test_a_request_is_told_on_with_its_own_host_and_one_connection() -> None:
    asked = read_request(
        a_head(
            "Host: web.a.localhost:8080", "Connection: keep-alive", "X-Forwarded-For: 1.2.3.4", "Accept: text/html",
            "Cookie: k=v",
        )
    )  # fmt: skip

    told = request_up(asked, "https").decode().split("\r\n")

    assert told[0] == "GET /a?b=c HTTP/1.1"
    assert "Host: web.a.localhost:8080" in told
    assert "Connection: close" in told
    assert "Connection: keep-alive" not in told
    assert "X-Forwarded-Proto: https" in told
    assert [line for line in told if line.startswith("X-Forwarded-For")] == ["X-Forwarded-For: 127.0.0.1"]
    assert asked.wants("text/html")


def test_an_upgrade_is_told_on_as_one() -> None:
    asked = read_request(a_head("Host: a", "Connection: keep-alive, Upgrade", "Upgrade: websocket"))

    told = request_up(asked, "http").decode()

    assert asked.upgrade == "websocket"
    assert "Connection: Upgrade\r\nUpgrade: websocket\r\n" in told
    assert "close" not in told


@pytest.mark.parametrize(
    ("lines", "length"),
    [((), 0), (("Content-Length: 12",), 12), (("Transfer-Encoding: chunked",), None)],
)
def test_the_length_of_a_body_is_read(lines: tuple[str, ...], length: int | None) -> None:
    assert read_request(a_head("Host: a", *lines)).length == length


@pytest.mark.parametrize(
    "head",
    [
        a_head(),
        a_head("Host: a", "Host: b"),
        a_head("Host : a"),
        a_head(" Host: a"),
        a_head("Host: a", "no colon"),
        a_head("Host: a", "X: y\nEvil: z"),
        a_head("Host: a", "X: \0"),
        a_head("Host: a", "Content-Length: 1", "Transfer-Encoding: chunked"),
        a_head("Host: a", "Content-Length: 1", "Content-Length: 2"),
        a_head("Host: a", "Content-Length: +1"),
        a_head("Host: a", "Transfer-Encoding: gzip, chunked"),
        a_head("Host: a", start="GET http://a/ HTTP/1.1"),
        a_head("Host: a", start="CONNECT a:443 HTTP/1.1"),
        a_head("Host: a", start="GET / HTTP/2"),
        a_head("Host: a", start="GET  / HTTP/1.1"),
        b"GET / HTTP/1.1\nHost: a\n\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(BadHead):
        read_request(head)


def test_an_answer_is_told_down_for_one_request_and_never_pins_https() -> None:
    head = a_head(
        "Content-Type: text/event-stream", "Connection: keep-alive", "Strict-Transport-Security: max-age=1",
        start="HTTP/1.1 200 OK",
    )  # fmt: skip

    told = answer_down(read_answer(head)).decode()

    assert told == "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def test_a_change_of_protocol_is_told_down_as_it_is() -> None:
    head = a_head("Connection: Upgrade", "Upgrade: websocket", start="HTTP/1.1 101 Switching Protocols")

    assert answer_down(read_answer(head)) == head


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(BadHead):
        read_answer(a_head(start="SSH-2.0-OpenSSH_9"))


def test_an_answer_of_ours_runs_no_script_and_is_not_kept() -> None:
    whole = answer_of_ours(404, "text/html", "<p>ä</p>").decode()
    head, _, body = whole.partition("\r\n\r\n")

    assert "Content-Security-Policy: default-src 'none'" in head
    assert "Cache-Control: no-store" in head
    assert f"Content-Length: {len(body.encode())}" in head
    assert answer_of_ours(404, "text/html", "text", "HEAD").endswith(b"\r\n\r\n")
