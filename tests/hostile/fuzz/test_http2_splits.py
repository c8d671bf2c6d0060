"""How the bytes of an HTTP/2 upstream and of its clients, of either version, are cut on their way changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.strict import answers, requests

from hostile.fuzz.frames import PREFACE, SETTINGS, block, frame
from hostile.fuzz.over_http2 import Said, Upstream, got
from hostile.fuzz.stage import API, CLIENT_TLS, OTHER, SECRET, Stage, a_stage
from hostile.fuzz.test_http2_garbage import H2_ONLY, answer
from hostile.fuzz.test_splits import CHUNKED, CODED, CUTS, SAID, at

MISMATCH = (("content-length", "5"), ("content-length", "6"))
ANSWERS = {
    b"/length": Said("200", (("content-length", "5"), ("x-a", "b")), b"hello"),
    b"/nothing": Said("204", (("x-a", "b"),)),
    b"/same": Said("304", (("etag", '"a"'),)),
    b"/unknown": Said("200", (), b"of a length that nobody knows", (("x-check", "1"),)),
    b"/only": Said("200", (("grpc-status", "5"),)),
    b"/trailers": Said("200", (), b"", (("grpc-status", "0"), ("x-said", SECRET))),
    b"/hints": Said("200", (("content-length", "2"),), b"ok", early=("103", "103")),
    b"/secret": Said("200", (("x-said", SECRET), ("content-length", str(len(SAID)))), SAID),
    b"/short": Said("200", (("content-length", "50"),), b"half"),
    b"/long": Said("200", (("content-length", "2"),), b"hello"),
    b"/reset": Said("200", (), b"half", code=2),
    b"/unanswered": Said("", code=8),
    b"/refused": Said("", code=7),
    b"/wrong": Said("200", MISMATCH, b"hello"),
    b"/odd": Said("200", (("connection", "close"),), b"hello"),
    b"/farewell": Said("200", (), b"good bye", leaves=True),
}
for name, data in CODED.items():
    ANSWERS[b"/" + name] = Said("200", (("content-encoding", name.decode()),), data)


def talks(host: str) -> dict[str, bytes]:
    """Return what a client of HTTP/1.1 sends, by what it is an example of."""
    post, pieces = ("Content-Length: 11",), ("Transfer-Encoding: chunked", "Trailer: X-Check")
    return {
        **{path.decode(): at(host, f"GET {path.decode()}") for path in ANSWERS},
        "pipelined": b"".join(at(host, line) for line in ("GET /length", "HEAD /length", "GET /unknown", "GET /same")),
        "bodies": at(host, "POST /length", *post, body=b"hello\r\n\r\n00")
        + at(host, "PUT /nothing", *pieces, body=CHUNKED)
        + at(host, "GET /hints"),
        "expected": at(host, "POST /hints", *post, "Expect: 100-continue", body=b"hello world")
        + at(host, "GET /length"),
        "upgraded": at(host, "GET /length", "Connection: Upgrade", "Upgrade: websocket"),
        "old": at(host, "GET /unknown").replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n"),
        "again": at(host, "GET /farewell") + at(host, "GET /length"),
    }


def framed(host: str) -> dict[str, tuple[dict[int, str], bytes]]:
    """Return the same of a client of HTTP/2, with the methods of its streams."""

    def head(method: str, path: str, *more: tuple[str, str]) -> bytes:
        return block([(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *more])

    begun = PREFACE + SETTINGS
    split = head("POST", "/unknown", ("x-long", "y" * 300))
    many = (
        frame(1, 5, 1, head("GET", "/length")),
        frame(1, 0, 3, split[:50]) + frame(9, 0, 3, split[50:60]) + frame(9, 4, 3, split[60:]),
        frame(0, 0, 3, b"hello") + frame(0, 8, 3, b"\x05world" + bytes(5)) + frame(6, 0, 0, bytes(8)),
        frame(1, 5, 3, block([("x-check", "1")])),
        frame(1, 4, 5, head("PUT", "/nothing", ("content-length", "3"))) + frame(8, 0, 0, b"\0\0\x10\0"),
        frame(0, 1, 5, b"abc"),
        frame(1, 5, 7, head("HEAD", "/length")),
    )
    found = {path.decode(): ({1: "GET"}, begun + frame(1, 5, 1, head("GET", path.decode()))) for path in ANSWERS}
    return {**found, "many": ({1: "GET", 3: "POST", 5: "PUT", 7: "HEAD"}, begun + b"".join(many))}


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Stage, Upstream]]:
    upstream = Upstream(ANSWERS)
    async with a_stage(answer, upstream) as stage:
        upstream.stage = stage
        for host in (API, OTHER):  # which takes a handshake more, the first time
            await told(stage, upstream, ("HTTP/1.1", host, "/length"), [], [])
        yield stage, upstream


Talk = tuple[str, str, str]  # the client's version, the host, and what kind


async def told(stage: Stage, upstream: Upstream, talk: Talk, cuts: list[int], wire_cuts: list[int]) -> Any:
    """Return all that both sides and the trace are told, for a talk that is cut so."""
    version, host, kind = talk
    await stage.begin()
    upstream.begin()
    stage.cuts = wire_cuts
    peer = await stage.client(host, wire_cuts, H2_ONLY if version == "HTTP/2" else CLIENT_TLS)
    sent = framed(host)[kind][1] if version == "HTTP/2" else talks(host)[kind]
    await peer.send(sent, cuts, wire_cuts)
    await stage.quiet()
    if version == "HTTP/2":
        came: Any = {
            number: (fields, body if end == "whole" else b"", end)
            for number, (fields, body, end) in got(peer, framed(host)[kind][0]).items()
        }
    else:
        methods = [message.first[0] for message in requests(sent).messages]
        read = answers(bytes(peer.data), methods, ended=peer.has_ended)
        came = [(one.first, one.fields, one.body, one.trailers) for one in read.whole], read.problem
    assert host != API or SECRET.encode() not in peer.data
    peer.close()
    await stage.until(lambda: not stage.is_serving)
    assert stage.complaints == []
    return sorted(map(repr, (asked.told for asked in upstream.requests))), came, _records(stage)


def _records(stage: Stage) -> list[tuple[object, ...]]:
    return sorted(
        (one.method, one.path, one.status, one.outcome, one.reason, one.request_bytes, one.response_bytes)
        for one in stage.guest.records
    )


UNCUT: dict[Talk, Any] = {}
OF_ANOTHER_LENGTH = ("/short", "/long")  # it is chance how much of them has left when that is seen
KINDS = {"HTTP/1.1": [*talks(API)], "HTTP/2": [*framed(API)]}
TALKS = [
    (version, host, kind)
    for version, kinds in KINDS.items()
    for host in (API, OTHER)
    for kind in kinds
    if kind not in OF_ANOTHER_LENGTH
]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("host", [API, OTHER])
async def test_both_sides_see_the_same_of_single_bytes(scene: tuple[Stage, Upstream], version: str, host: str) -> None:
    for talk in TALKS:
        if talk[:2] == (version, host):
            uncut = await told(*scene, talk, [], [])

            assert await told(*scene, talk, [1] * 3_000, [1] * 3_000) == uncut, talk


@fuzzed(100)
@given(talk=st.sampled_from(TALKS), cuts=CUTS, wire_cuts=CUTS)
async def test_both_sides_see_the_same_however_the_bytes_are_cut(
    scene: tuple[Stage, Upstream], talk: Talk, cuts: list[int], wire_cuts: list[int]
) -> None:
    if talk not in UNCUT:
        UNCUT[talk] = await told(*scene, talk, [], [])

    assert await told(*scene, talk, cuts, wire_cuts) == UNCUT[talk]


@fuzzed(30)
@given(
    version=st.sampled_from(sorted(KINDS)), host=st.sampled_from((API, OTHER)),
    kind=st.sampled_from(OF_ANOTHER_LENGTH), cuts=CUTS, wire_cuts=CUTS,
)  # fmt: skip
async def test_a_body_of_another_length_than_it_says_is_an_error_or_cut_off(
    scene: tuple[Stage, Upstream], version: str, host: str, kind: str, cuts: list[int], wire_cuts: list[int]
) -> None:
    _, came, records = await told(*scene, (version, host, kind), cuts, wire_cuts)

    ((_, _, status, outcome, reason, *_),) = records
    assert (status, outcome) in ((502, "failed"), (200, "forwarded"))
    assert "Content-Length" in reason if status == 502 else reason == "the upstream broke off"
    if version == "HTTP/2":
        assert (status, came[1][2]) in ((502, "whole"), (200, "reset 1"))
    elif status == 200:  # what has come is no more than was said
        assert came[0] == [] or (kind, came[0][0][2]) == ("/long", b"he")
