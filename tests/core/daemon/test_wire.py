from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moat.daemon.wire import MAX_HEAD_BYTES, NotHttp, exchange

LIMIT = 1000
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextmanager
def answered(data: bytes, said: bytearray | None = None) -> Iterator[socket.socket]:
    """Yield a socket whose other end reads a request, says data and hangs up. said: gets what was asked."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs:
            asked = theirs.recv(65_536)
            if said is not None:
                said.extend(asked)
            theirs.sendall(data)

    thread = threading.Thread(target=answer)
    thread.start()
    ours.settimeout(10)
    try:
        with ours:
            yield ours
    finally:
        thread.join()


def ask(data: bytes) -> tuple[int, bytes]:
    with answered(data) as sock:
        return exchange(sock, "GET", "/", None, LIMIT)


def test_a_request_is_one_that_any_server_understands() -> None:
    said = bytearray()
    body = json.dumps({"name": "é"}).encode()

    with answered(NO_CONTENT, said) as sock:
        exchange(sock, "POST", "/v1/runs", body, LIMIT)

    head, _, sent = bytes(said).partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"POST /v1/runs HTTP/1.1",
        b"Host: moat",
        b"Connection: close",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    assert sent == body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}")),
        (b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\n{}and more", (200, b"{}")),
        (b"HTTP/1.0 404 Not Found\r\nX: a:b\r\nContent-Length: 0\r\n\r\n", (404, b"")),
        (NO_CONTENT, (204, b"")),
    ],
)
def test_an_answer_is_its_status_and_its_body(data: bytes, expected: tuple[int, bytes]) -> None:
    assert ask(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES,
    ],
)
def test_what_the_daemon_never_says_is_not_http(data: bytes) -> None:
    with pytest.raises(NotHttp):
        ask(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_an_end_of_the_connection(data: bytes) -> None:
    with pytest.raises(ConnectionResetError):
        ask(data)
