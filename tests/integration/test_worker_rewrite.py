"""A real worker, answers that rules change or hold, and streams that none of that may touch."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.rules import Instead, Match, OnlyPlaceholder, Rewriter, RewriteResponse
from moat.proxy.scrub import mask
from support.scripted import answer, bearer, talking

HOST = "api.example.com"
TOKEN = "s3cr3t-of-the-rewriting"
RULE = bearer(token=TOKEN)
PROFILE = RewriteResponse(
    Match(HOST, ("GET",), ("/api/oauth/profile",)),
    Instead(200, f'{{"id": "", "t": "{TOKEN}"}}'),
    (403,),
    grant="example",
)
BROKEN = RewriteResponse(Match(HOST), Rewriter("no-such-rewriter"), limit_bytes=2000)
STRICT = RewriteResponse(Match("other.example.com"), Rewriter("no-such-rewriter"), (), (), 2000, "refuse")
JSON = "Content-Type: application/json"


async def test_an_answer_that_a_client_cannot_bear_is_replaced_and_the_next_is_its_own(tmp_path: Path) -> None:
    refused = answer(b'{"error": "scope"}' * 50_000, JSON, "Request-Id: 7", status="403 Forbidden")
    answers = iter([refused, answer(b"yours"), refused])
    async with talking(tmp_path, lambda *_: [next(answers)], RULE, PROFILE) as talk:
        url = f"https://{HOST}/api/oauth/profile"
        seen = await talk.curl(url, "-i", "-w", "|", f"https://{HOST}/x", "-w", "|", "-X", "GET")
        elsewhere = await talk.curl(f"https://{HOST}/api/oauth/profiles", "-w", "%{http_code}")
        records = await talk.worker.records(3)

    head, _, rest = seen.partition(b"\r\n\r\n")[2].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"X-Moat-Rewritten: example" in head
    assert b"Request-Id: 7" in head
    assert rest.startswith(b'{"id": "", "t": "' + mask(len(TOKEN)) + b'"}|')
    assert rest.endswith(b"yours|")
    assert elsewhere.endswith(b"403")
    assert [record.status for record in records] == [200, 200, 403]


async def test_a_rewriter_that_is_not_there_is_a_502(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(b"{}", JSON)], RULE, BROKEN) as talk:
        seen = await talk.curl(f"https://{HOST}/", "-i")

    assert b"HTTP/1.1 502 " in seen
    assert b"no-such-rewriter" in seen


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_what_is_too_long_to_be_rewritten_is_not_cut(framing: str, tmp_path: Path) -> None:
    body = json.dumps({"long": "x" * 300_000, "t": TOKEN, "end": True}).encode()

    def script(head: str, asked: bytes) -> Iterator[bytes]:
        del head, asked
        if framing == "length":
            yield answer(body, JSON)
            return
        lines = "Transfer-Encoding: chunked\r\n" if framing == "chunked" else ""
        yield f"HTTP/1.1 200 OK\r\n{JSON}\r\n{lines}\r\n".encode()
        for at in range(0, len(body), 999):
            piece = body[at : at + 999]
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece
        yield b"0\r\n\r\n" if framing == "chunked" else b""

    async with talking(tmp_path, script, RULE, BROKEN) as talk:
        seen = await talk.curl(f"https://{HOST}/")

    assert seen == body.replace(TOKEN.encode(), mask(len(TOKEN)))


async def test_what_is_too_long_passes_in_its_coding_or_is_refused_where_the_rule_says_so(tmp_path: Path) -> None:
    body = json.dumps({"long": list(range(5000)), "t": TOKEN}).encode()
    packed = gzip.compress(body)
    async with talking(
        tmp_path, lambda *_: [answer(packed, JSON, "Content-Encoding: gzip")], RULE, BROKEN, STRICT
    ) as talk:
        passed = await talk.curl(f"https://{HOST}/")
        refused = await talk.curl("https://other.example.com/", "-w", "%{http_code}")

    assert passed == body.replace(TOKEN.encode(), mask(len(TOKEN)))
    assert refused.endswith(b"502")


async def test_events_are_never_held(tmp_path: Path) -> None:
    def events(head: str, body: bytes) -> Iterator[bytes | None]:
        del head, body
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield b"d\r\ndata: first\n\n\r\n"
        yield None
        yield b"e\r\ndata: second\n\n\r\n0\r\n\r\n"

    every_kind = RewriteResponse(Match(HOST), Rewriter("no-such-rewriter"), kinds=())
    async with talking(tmp_path, events, RULE, every_kind) as talk:
        argv = ["curl", "-sSN", "--max-time", "30", "--cacert", str(talk.worker.ca_file), "-x", talk.proxy]
        process = await asyncio.create_subprocess_exec(*argv, f"https://{HOST}/", stdout=-1)
        assert process.stdout is not None
        assert await process.stdout.readexactly(13) == b"data: first\n\n"
        talk.place.go_on.set()
        assert await process.stdout.read() == b"data: second\n\n"
        await process.wait()


async def test_a_key_of_the_clients_own_is_kept_in_where_the_rule_says_so(tmp_path: Path) -> None:
    only = OnlyPlaceholder(Match(HOST), "Authorization", "moat-placeholder", grant="example")
    async with talking(tmp_path, lambda *_: [answer(b"out")], RULE, only) as talk:
        own = await talk.curl(f"https://{HOST}/", "-i", "-H", "Authorization: Bearer theirs-own-key")
        ours = await talk.curl(f"https://{HOST}/", "-H", "Authorization: Bearer moat-placeholder")
        none = await talk.curl(f"https://{HOST}/")
        records = await talk.worker.records(3)

    assert b"HTTP/1.1 403 " in own
    assert b"X-Moat-Blocked: credential" in own
    assert (ours, none) == (b"out", b"out")
    assert all("theirs" not in head for head in talk.place.heads)
    assert [record.outcome for record in records] == ["denied", "forwarded", "forwarded"]


async def test_a_secret_in_a_path_is_not_recorded(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(b"out")], RULE) as talk:
        await talk.curl(f"https://{HOST}/bot{TOKEN}/x")
        await talk.curl(f"https://other.example.com/{TOKEN}")
        records = await talk.worker.records(2)

    hidden = mask(len(TOKEN)).decode()
    assert [record.path for record in records] == [f"/bot{hidden}/x", f"/{hidden}"]
