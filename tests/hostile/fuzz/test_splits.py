"""How bytes are cut on their way changes nothing: both sides see what they would have seen of one piece."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.strict import Message, answers, requests

from hostile.fuzz.stage import API, PLAIN, SECRET, Stage, a_stage

SAID = b'{"token": "' + SECRET.encode() + b'", "again": "Bearer ' + SECRET.encode() + b'"}' * 20
CODED = {
    b"gzip": gzip.compress(SAID),
    b"deflate": zlib.compress(SAID),
    b"br": brotli.compress(SAID),
    b"zstd": zstd.compress(SAID),
}
CHUNKED = b"3\r\nabc\r\n1\r\nd\r\n0A\r\n0123456789\r\n0\r\nX-Check: 1\r\n\r\n"


def at(host: str, line: str, *lines: str, body: bytes = b"") -> bytes:
    """Return a request in the form that the way to host asks for."""
    method, path = line.split(" ")
    target = f"http://{host}{path}" if host == PLAIN else path
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode() + body


TALKS: dict[str, tuple[str, ...]] = {}
ANSWERS = {
    b"/length": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"],
    b"/nothing": [b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"],
    b"/same": [b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 5\r\n\r\n'],
    b"/chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n" + CHUNKED],
    b"/close": [b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b""],
    b"/hints": [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ],
    b"/socket": [b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
    b"/secret": [
        b"HTTP/1.1 200 OK\r\nX-Said: " + SECRET.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(SAID) + SAID
    ],
    b"/broken": [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", b""],
    b"/wrong": [b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello"],
    b"/extended": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"],
}
for name, data in CODED.items():
    ANSWERS[b"/" + name] = [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (name, len(data)) + data
    ]


def talks(host: str) -> dict[str, list[bytes]]:
    """Return what a client sends, by what it is an example of; what waits for an answer stands in another piece."""
    post = ("Content-Length: 11",)
    pieces = ("Transfer-Encoding: chunked", "Trailer: X-Check")
    found = {path.decode(): [at(host, f"GET {path.decode()}")] for path in ANSWERS if path != b"/socket"}
    return {
        **found,
        "pipelined": [
            at(host, "GET /length") + at(host, "HEAD /length") + at(host, "GET /chunked") + at(host, "GET /same")
        ],
        "bodies": [
            at(host, "POST /length", *post, body=b"hello\r\n\r\n00")
            + at(host, "PUT /nothing", *pieces, body=CHUNKED)
            + at(host, "GET /hints")
        ],
        "expected": [
            at(host, "POST /hints", *post, "Expect: 100-continue", body=b"hello world") + at(host, "GET /length")
        ],
        "upgraded": [
            at(host, "GET /socket", "Connection: Upgrade", "Upgrade: websocket"),
            b"\x81\x05hello\x82\x09\r\n\r\nGET /",
        ],
        "extended up": [at(host, "POST /length", "Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\n\r\n")],
        "empty lines": [b"\r\n" + at(host, "GET /length") + b"\r\n" + at(host, "GET /length")],
        "more empty lines": [b"\r\n\r\n\r\n" + at(host, "GET /length")],
        "malformed": [at(host, "GET /length") + at(host, "GET /length", "X: a\x00b") + at(host, "GET /length")],
        "a bare line feed": [at(host, "GET /length").replace(b"\r\n", b"\n")],
        "two lengths": [at(host, "POST /length", *post, "Content-Length: 10", body=b"hello world")],
        "denied": [at("evil.test", "GET /length") + at(host, "GET /length")],
        "old": [at(host, "GET /length").replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")],
    }


def answer(name: str, message: Message) -> Iterable[bytes]:
    del name
    pieces = ANSWERS[message.first[1]]
    if message.first[0] == b"HEAD":
        return [pieces[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"]
    return pieces


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(answer) as made:
        yield made


async def told(stage: Stage, host: str, talk: list[bytes], cuts: list[int], wire_cuts: list[int]) -> Any:
    """Return all that both sides and the trace are told, for a talk that is cut so."""
    await stage.begin()
    stage.cuts = wire_cuts
    peer = await stage.client("" if host == PLAIN else host, wire_cuts)
    for piece in talk:
        await peer.send(piece, cuts, wire_cuts if host != PLAIN else ())
        await stage.quiet()
    peer.close()
    await stage.until(lambda: not stage.is_serving)
    seen = [_seen(requests(bytes(one.data), bare=True).messages[number]) for one, number in stage.order]
    methods = [message.first[0] for message in requests(talk[0]).messages]
    read = answers(bytes(peer.data), methods, ended=peer.has_ended)
    records = [
        (one.method, one.path, one.status, one.outcome, one.grants, one.request_bytes, one.response_bytes)
        for one in stage.guest.records
    ]
    assert stage.complaints == []
    # How much of half an answer passes before the rest turns out to be broken is chance.
    return seen, [_seen(message) for message in read.whole], read.problem, records


def _seen(message: Message) -> Any:
    body = message.body if message.is_whole else b""
    return message.first, message.fields, body, message.trailers, message.is_whole


UNCUT: dict[tuple[str, str], Any] = {}
CUTS = st.lists(st.one_of(st.just(1), st.integers(1, 40)), max_size=60)


@pytest.mark.parametrize("host", [PLAIN, API])
async def test_both_sides_see_the_same_of_single_bytes(stage: Stage, host: str) -> None:
    for kind, talk in talks(host).items():
        uncut = await told(stage, host, talk, [], [])

        assert await told(stage, host, talk, [1] * 3_000, [1] * 3_000) == uncut, kind


@fuzzed(100)
@given(host=st.sampled_from((PLAIN, API)), kind=st.sampled_from(sorted(talks(PLAIN))), cuts=CUTS, wire_cuts=CUTS)
async def test_both_sides_see_the_same_however_the_bytes_are_cut(
    stage: Stage, host: str, kind: str, cuts: list[int], wire_cuts: list[int]
) -> None:
    talk = talks(host)[kind]
    if (host, kind) not in UNCUT:
        UNCUT[host, kind] = await told(stage, host, talk, [], [])

    assert await told(stage, host, talk, cuts, wire_cuts) == UNCUT[host, kind]
