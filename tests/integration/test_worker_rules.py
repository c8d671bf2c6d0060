"""A real worker, rules that a person or a provider gave it, and an upstream that says back what it was told."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from moat.api.rules import Match, ReplaceToken, SetHeader
from moat.api.runs import NetworkPolicy
from moat.net.rules import parse_rule
from moat.proxy.scrub import mask
from support.scripted import Script, answer, bearer, talking
from support.worker import a_run

TOKEN = "s3cr3t/of+the=upstream"
RULE = bearer(token=TOKEN)
URL = "https://api.example.com/"


def authorization(head: str) -> str:
    return next(line[15:] for line in head.split("\r\n") if line.lower().startswith("authorization:"))


def echo(head: str, body: bytes) -> Iterator[bytes]:
    del body
    yield answer(json.dumps({"headers": head}).encode(), f"X-Echo: {authorization(head)}", f"Location: /?t={TOKEN}")


async def test_a_service_that_repeats_the_credential_shows_it_to_nobody(tmp_path: Path) -> None:
    async with talking(tmp_path, echo, RULE) as talk:
        seen = await talk.curl(URL, "-i")

    assert TOKEN in talk.place.heads[0]
    assert TOKEN.encode() not in seen
    assert seen.count(mask(len(TOKEN))) == 3
    assert b"X-Echo: Bearer [moat:redacted" in seen


@pytest.mark.parametrize(
    "written",
    [quote(TOKEN, safe=""), quote(TOKEN, safe="").lower(), TOKEN.replace("/", "\\/"), TOKEN.replace("+", "\\u002B"),
     base64.b64encode(f"user:{TOKEN}".encode()).decode(), base64.urlsafe_b64encode(f"a{TOKEN}bc".encode()).decode()],
    ids=["percent", "percent in lower case", "JSON", "JSON escapes", "base64 of a pair", "base64 within more"],
)  # fmt: skip
async def test_it_is_known_in_other_writings(written: str, tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(f"<{written}>".encode())], RULE) as talk:
        seen = await talk.curl(URL)

    assert b"[moat:redacted" in seen
    assert len(seen) == len(written) + 2
    assert written[6:-6].encode() not in seen


async def test_a_git_password_is_known_without_its_user_name(tmp_path: Path) -> None:
    pair = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    rule = SetHeader(Match("api.example.com"), "Authorization", f"Basic {pair}", "example")
    async with talking(tmp_path, lambda *_: [answer(f"{TOKEN} {pair}".encode())], rule) as talk:
        seen = await talk.curl(URL)

    assert seen == mask(len(TOKEN)) + b" " + mask(len(pair))


async def test_pieces_that_end_in_no_secret_are_not_held_up(tmp_path: Path) -> None:
    def events(head: str, body: bytes) -> Iterator[bytes | None]:
        del head, body
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield b"d\r\ndata: first\n\n\r\n"
        yield None
        first, second = f"data: {TOKEN[:9]}".encode(), f"{TOKEN[9:]}\n\n".encode()
        yield b"%x\r\n%b\r\n" % (len(first), first)
        yield b"%x\r\n%b\r\n0\r\nX-Trail: %b\r\n\r\n" % (len(second), second, TOKEN.encode())

    async with talking(tmp_path, events, RULE) as talk:
        argv = ["curl", "-sSN", "--max-time", "30", "--cacert", str(talk.worker.ca_file), "-x", talk.proxy, URL]
        process = await asyncio.create_subprocess_exec(*argv, stdout=-1)
        assert process.stdout is not None
        first = await process.stdout.readexactly(13)
        talk.place.go_on.set()
        rest = await process.stdout.read()
        await process.wait()

    assert first == b"data: first\n\n"
    assert rest == b"data: " + mask(len(TOKEN)) + b"\n\n"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_an_answer_that_comes_encoded_all_the_same_is_decoded(coding: str, tmp_path: Path) -> None:
    pack = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstd.compress}[coding]
    body = f"token: {TOKEN}".encode() * 1000
    async with talking(tmp_path, lambda *_: [answer(pack(body), f"Content-Encoding: {coding}")], RULE) as talk:
        seen = await talk.curl(URL, "-H", "Accept-Encoding: gzip, br, zstd", "-D", str(tmp_path / "head"))
        again = await talk.curl(URL, "-0")

    assert "Accept-Encoding: identity" in talk.place.heads[0]
    assert seen == again == body.replace(TOKEN.encode(), mask(len(TOKEN)))
    assert "content-encoding" not in (tmp_path / "head").read_text().lower()


async def test_what_looked_like_a_secret_at_the_end_of_the_connection_is_delivered(tmp_path: Path) -> None:
    answers = [b"HTTP/1.1 200 OK\r\n\r\nends in " + TOKEN[:12].encode(), b""]
    async with talking(tmp_path, lambda *_: answers, RULE) as talk:
        seen = await talk.curl(URL)

    assert seen == b"ends in " + TOKEN[:12].encode()


async def test_an_answer_that_cannot_be_read_is_a_502_that_says_why(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(b"??", "Content-Encoding: dcb")], RULE) as talk:
        seen = await talk.curl(URL, "-i")
        (record,) = await talk.worker.records(1)

    assert seen.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 502 ")
    assert b"X-Moat-Error: coding" in seen
    assert "'dcb'" in record.reason


async def test_hosts_without_rules_are_left_alone(tmp_path: Path) -> None:
    packed = gzip.compress(b"hello")
    async with talking(tmp_path, lambda *_: [answer(packed, "Content-Encoding: gzip")], RULE) as talk:
        await talk.curl(URL)
        seen = await talk.curl("https://other.example.com/", "-H", "Accept-Encoding: gzip")

    assert seen == packed
    assert "Accept-Encoding: gzip" in talk.place.heads[1]


async def test_every_credential_that_the_run_used_is_removed_wherever_it_has_rules(tmp_path: Path) -> None:
    other = bearer("other.example.com", "s3cr3t-of-the-other")
    body = f"{TOKEN} s3cr3t-of-the-other".encode()
    async with talking(tmp_path, lambda *_: [answer(body)], RULE, other) as talk:
        before = await talk.curl(URL)
        await talk.curl("https://other.example.com/")
        after = await talk.curl(URL)

    assert before == mask(len(TOKEN)) + b" s3cr3t-of-the-other"
    assert after == mask(len(TOKEN)) + b" " + mask(19)


async def test_a_replaced_credential_is_still_removed(tmp_path: Path) -> None:
    async with talking(tmp_path, lambda *_: [answer(TOKEN.encode())], RULE) as talk:
        await talk.curl(URL)
        await talk.worker.put(a_run(rules=(bearer(token="s3cr3t-its-successor"),)))
        seen = await talk.curl(URL)

    assert "s3cr3t-its-successor" in talk.place.heads[1]
    assert seen == mask(len(TOKEN))


async def test_a_value_that_is_no_secret_is_left_in_answers(tmp_path: Path) -> None:
    version = SetHeader(Match("api.example.com"), "X-Version", "2023-06-01", "example", is_secret=False)
    async with talking(tmp_path, lambda *_: [answer(b"2023-06-01")], version) as talk:
        seen = await talk.curl(URL)

    assert seen == b"2023-06-01"


async def test_a_request_is_let_out_by_its_method_and_path(tmp_path: Path) -> None:
    policy = NetworkPolicy("strict", (), tuple(map(parse_rule, ("allow GET api.example.com/repos/**", "deny *"))))
    async with talking(tmp_path, lambda *_: [answer(b"out")], RULE, policy=policy) as talk:
        allowed = await talk.curl(URL + "repos/x?y=z")
        denied = await talk.curl(URL + "repos/x", "-X", "POST", "-i")
        doubtful = await talk.curl(URL + "repos/..%2fuser", "--path-as-is", "-w", "%{http_code}")
        elsewhere = await talk.curl("https://other.example.com/", "-i")
        records = await talk.worker.records(4)

    assert allowed == b"out"
    assert len(talk.place.heads) == 1
    assert b"X-Moat-Allow: --rule 'allow POST api.example.com/repos/x'" in denied
    assert b"to allow it, add, before it: --rule 'allow POST api.example.com/repos/x'" in denied
    assert doubtful.endswith(b"403")
    assert b"CONNECT tunnel failed, response 403" in elsewhere
    assert [record.outcome for record in records] == ["forwarded", "denied", "denied", "denied"]


async def test_new_rules_hold_for_the_next_request_of_an_open_tunnel(tmp_path: Path) -> None:
    def script(head: str, body: bytes) -> Iterator[bytes | None]:
        del body
        if head.startswith("GET /first "):
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfir"
            yield None
            yield b"st\n"
        else:
            yield answer(b"second")

    async with talking(tmp_path, script, RULE) as talk:
        argv = ["curl", "-sSN", "--max-time", "30", "--cacert", str(talk.worker.ca_file), "-x", talk.proxy]
        process = await asyncio.create_subprocess_exec(*argv, f"{URL}first", f"{URL}second", stdout=-1)
        assert process.stdout is not None
        await process.stdout.readexactly(3)
        await talk.worker.put(a_run(rules=(RULE,), policy=NetworkPolicy(rules=(parse_rule("deny */second"),))))
        talk.place.go_on.set()
        rest = await process.stdout.read()
        await process.wait()

    assert rest.startswith(b"st\nmoat: denied by the rule 'deny * */second'")
    assert [head.split()[1] for head in talk.place.heads] == ["/first"]


async def test_a_placeholder_is_replaced_where_it_is_declared_and_scrubbed_when_it_comes_back(tmp_path: Path) -> None:
    rule = ReplaceToken(Match("api.example.com"), "moat-placeholder", TOKEN, ("query", "body"), grant="example")
    script: Script = lambda head, body: [answer(head.split("\r\n")[0].encode() + b" " + body)]  # noqa: E731 - typed
    posted = (
        "-H",
        "Content-Type: application/json",
        "-H",
        "X-Key: moat-placeholder",
        "-d",
        '{"k": "moat-placeholder"}',
    )
    async with talking(tmp_path, script, rule) as talk:
        seen = await talk.curl(f"{URL}moat-placeholder?k=moat-placeholder", *posted)
        chunked = await talk.curl(URL, *posted, "-H", "Transfer-Encoding: chunked")
        await talk.curl("https://other.example.com/?moat-placeholder", *posted)
        records = await talk.worker.records(3)

    heads, bodies = talk.place.heads, talk.place.bodies
    assert heads[0].startswith(f"POST /moat-placeholder?k={quote(TOKEN, safe=':')} ")
    assert "X-Key: moat-placeholder" in heads[0]
    assert bodies[0] == json.dumps({"k": TOKEN}).encode()
    assert TOKEN.encode() not in seen + chunked
    assert heads[2].startswith("POST /?moat-placeholder ")
    assert bodies[2] == b'{"k": "moat-placeholder"}'
    assert [record.grants for record in records] == [("example",), ("example",), ()]


async def test_a_body_beyond_the_bound_is_never_half_replaced(tmp_path: Path) -> None:
    lax = ReplaceToken(Match("api.example.com"), "moat-placeholder", TOKEN, ("body",), 1000)
    strict = ReplaceToken(Match("other.example.com"), "moat-placeholder", TOKEN, ("body",), 1000, require=True)
    body = b'{"k": ["moat-placeholder", "' + b"x" * 300_000 + b'", "moat-placeholder"]}'
    posted = ("-H", "Content-Type: application/json", "--data-binary", "@-", "-i", "-H", "Expect:")
    async with talking(tmp_path, lambda *_: [answer(b"fine")], lax, strict) as talk:
        passed = await talk.curl(URL, *posted, stdin=body)
        refused = await talk.curl("https://other.example.com/", *posted, stdin=body)

    assert talk.place.bodies == [body]
    assert passed.endswith(b"fine")
    assert b"HTTP/1.1 413 " in refused
