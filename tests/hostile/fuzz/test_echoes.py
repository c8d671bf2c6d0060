"""A service that gives a credential back: the run that used it never sees it, however it is written, coded or cut."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from urllib.parse import quote

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from moat.api.rules import Match, ReplaceToken, SetHeader
from moat.api.runs import NetworkPolicy
from moat.net.rules import parse_rule
from moat.proxy.scrub import mask
from support.fuzz import fuzzed
from support.strict import Message
from support.wire import Peer
from support.worker import a_run

from hostile.fuzz.stage import API, OTHER, Stage, a_stage
from hostile.fuzz.traffic import SIZES
from hostile.fuzz.verdicts import check_client

TOKEN = "s3cr3t/of+the=api&more"
RULE = SetHeader(Match(API), "Authorization", f"Bearer {TOKEN}", "example")
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda text: quote(text, safe=""),
    "JSON": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "a pair in base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}
GET = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


def shows(came: bytes) -> bool:
    """Whether a reader of what came knows more of the token than its ends."""
    return any(write(TOKEN)[6:-6].encode() in came for write in WRITINGS.values())


def saying(*pieces: bytes) -> Callable[[str, Message], Iterable[bytes]]:
    """Return an upstream that says the same to everybody."""
    return lambda _, __: pieces


def silent(name: str, message: Message) -> Iterable[bytes]:
    """An upstream that does not answer by itself."""
    del name, message
    return ()


OK = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(OK, rules=(RULE,)) as made:
        yield made


async def asked(stage: Stage, data: bytes = GET, host: str = API) -> Peer:
    """Send data through a tunnel to host; return the peer once nothing moves any more."""
    peer = await stage.client(host)
    await peer.send(data)
    await stage.quiet()
    return peer


@fuzzed(40)
@given(
    writing=st.sampled_from(sorted(WRITINGS)), coding=st.sampled_from(sorted(CODINGS)), around=st.binary(max_size=30),
    sizes=SIZES, is_chunked=st.booleans(),
)  # fmt: skip
async def test_a_credential_in_a_body_comes_back_to_nobody_however_it_is_written_coded_and_cut(
    stage: Stage, writing: str, coding: str, around: bytes, sizes: list[int], is_chunked: bool
) -> None:
    body = CODINGS[coding](around + b"<" + WRITINGS[writing](TOKEN).encode() + b">" + around)
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    said = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\n%b\r\n\r\n" % (coding.encode(), framing) + framed
    await stage.begin()
    stage.answer, stage.cuts = saying(said), sizes
    peer = await asked(stage)

    (answer,) = check_client(bytes(peer.data), GET, ended=peer.has_ended)
    assert answer.is_whole
    assert len(answer.body) == len(around) * 2 + 2 + len(WRITINGS[writing](TOKEN))
    assert b"[moat:redacted" in answer.body
    assert not shows(bytes(peer.data))


@fuzzed(40)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(sorted(WRITINGS)), st.booleans(), st.binary(max_size=9)), min_size=1, max_size=4
    ),
    kind=st.sampled_from(("application/grpc", "application/grpc-web+proto", "application/connect+json")), sizes=SIZES,
)  # fmt: skip
async def test_a_credential_in_messages_comes_back_to_nobody_compressed_or_not(
    stage: Stage, parts: list[tuple[str, bool, bytes]], kind: str, sizes: list[int]
) -> None:
    plain = [around + WRITINGS[writing](TOKEN).encode() + around for writing, _, around in parts]
    packed = [gzip.compress(text) if is_packed else text for text, (_, is_packed, _) in zip(plain, parts, strict=True)]
    body = b"".join(
        bytes((is_packed,)) + len(text).to_bytes(4) + text
        for text, (_, is_packed, _) in zip(packed, parts, strict=True)
    )
    name = "connect-content-encoding" if "connect" in kind else "grpc-encoding"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{name}: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    await stage.begin()
    stage.answer, stage.cuts = saying(head.encode() + body), sizes
    peer = await asked(stage, GET[:-2] + f"{name.replace('content', 'accept')}: gzip\r\n\r\n".encode())

    (answer,) = check_client(bytes(peer.data), GET, ended=peer.has_ended)
    assert answer.is_whole
    assert len(answer.body) == sum(5 + len(text) for text in plain)
    assert not shows(answer.body)
    assert answer.body.count(b"[moat:redacted") == len(parts)


@pytest.mark.parametrize(
    "place", ["a field", "the reason", "an interim answer", "the reason of 103", "a trailer", "a name"]
)
async def test_a_credential_in_a_head_or_a_trailer_comes_back_to_nobody(stage: Stage, place: str) -> None:
    said = {
        "a field": b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n",
        "the reason": b"HTTP/1.1 200 %b\r\nContent-Length: 0\r\n\r\n",
        "an interim answer": b"HTTP/1.1 103 Hints\r\nX: %b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "the reason of 103": b"HTTP/1.1 103 %b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "a trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: %b\r\n\r\n",
        "a name": b"HTTP/1.1 200 OK\r\n%b: x\r\nContent-Length: 0\r\n\r\n",
    }[place]
    for write in WRITINGS.values():
        await stage.begin()
        stage.answer = saying(said % write(TOKEN).encode())
        peer = await asked(stage)

        assert check_client(bytes(peer.data), GET, ended=peer.has_ended)
        assert not shows(bytes(peer.data))


def echoing_parts(name: str, message: Message) -> Iterable[bytes]:
    """An upstream that repeats what it was sent, and obeys Range."""
    del name
    fields = dict(message.fields)
    body = fields[b"authorization"]
    if b"range" not in fields:
        return (b"HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),)
    first, last = map(int, fields[b"range"].removeprefix(b"bytes=").split(b"-"))
    part = body[first : last + 1]
    return (b"HTTP/1.1 206 Some\r\nContent-Length: %d\r\n\r\n%b" % (len(part), part),)


async def test_a_credential_is_not_read_in_parts_that_each_are_too_short_to_be_one() -> None:
    async with a_stage(echoing_parts, rules=(RULE,)) as stage:
        peers = [
            await asked(stage, GET[:-2] + b"Range: bytes=%d-%d\r\nIf-Range: x\r\n\r\n" % (at, at + 5))
            for at in range(0, len(f"Bearer {TOKEN}"), 6)
        ]

    assert all(peer.data.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: ") for peer in peers)
    assert all(peer.data.endswith(b"\r\n\r\nBearer " + mask(len(TOKEN))) for peer in peers)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 20", "Content-Length: 200000"])
async def test_a_credential_that_is_renewed_while_an_answer_lasts_does_not_come_back_in_it(framing: str) -> None:
    renewed = b"s3cr3t-of-tomorrow"
    rule = SetHeader(Match(API), "Authorization", f"Bearer {renewed.decode()}", "example")
    async with a_stage(OK, rules=(RULE,)) as stage:
        peer = await asked(stage)  # from now on over a kept connection, and the short way
        peer.data.clear()
        stage.answer = silent
        await peer.send(GET)
        await stage.quiet()
        (service,) = stage.seen
        stage.answer = OK
        stage.guest.house.put(a_run(rules=(rule,), policy=NetworkPolicy("strict", (API,))), {})
        await asked(stage)
        piece = b"12\r\n%b\r\n" % renewed if "chunked" in framing else renewed + b"!!"
        await service.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (framing.encode(), piece))
        await stage.quiet()

    assert mask(len(renewed)) in peer.data
    assert renewed not in peer.data


@pytest.mark.parametrize("place", ["the reason of 101", "Upgrade"])
async def test_a_credential_in_the_head_of_an_upgrade_comes_back_to_nobody(stage: Stage, place: str) -> None:
    said = {
        "the reason of 101": b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "Upgrade": b"HTTP/1.1 101 Changing\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n",
    }[place]
    for write in WRITINGS.values():
        await stage.begin()
        stage.answer = saying(said % write(TOKEN).encode())
        peer = await asked(stage, GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

        assert peer.data.startswith(b"HTTP/1.1 101 " if place != "Upgrade" else b"HTTP/1.1 502 ")
        assert not shows(bytes(peer.data))


@pytest.mark.parametrize("coding", ["compress", "x", "gzip, x", "aws-chunked"])
async def test_an_answer_that_cannot_be_searched_for_the_credential_is_not_delivered(stage: Stage, coding: str) -> None:
    said = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(TOKEN)}\r\n\r\n{TOKEN}".encode()
    stage.answer = saying(said)
    peer = await asked(stage)

    (answer,) = check_client(bytes(peer.data), GET, ended=peer.has_ended)
    assert answer.first[1] == b"502"
    assert not shows(bytes(peer.data))


async def test_a_refusal_does_not_repeat_a_credential_that_came_as_a_coding() -> None:
    token = "s3cr3t-of-the-query"
    rule = ReplaceToken(Match(API), "placeholder", token, ("query",))
    said = f"HTTP/1.1 200 OK\r\nContent-Encoding: {token}\r\nContent-Length: 1\r\n\r\n?".encode()
    async with a_stage(saying(said), rules=(rule,)) as stage:
        peer = await asked(stage, GET.replace(b"GET /", b"GET /?key=placeholder"))
        (record,) = stage.guest.records

        assert peer.data.startswith(b"HTTP/1.1 502")
        assert token.encode() not in peer.data
        assert token not in record.reason


@pytest.mark.parametrize(("chooser", "spent"), [("", "first"), ("X-Choose: 1\r\n", "second")], ids=["first", "chosen"])
async def test_of_two_credentials_for_one_header_one_leaves_and_is_named(chooser: str, spent: str) -> None:
    rules = (
        SetHeader(Match(API), "Authorization", "Bearer s3cr3t-first", "first"),
        SetHeader(Match(API, when_header="X-Choose"), "Authorization", "Bearer s3cr3t-second", "second"),
    )
    async with a_stage(OK, rules=rules) as stage:
        await asked(stage, f"GET / HTTP/1.1\r\nHost: {API}\r\nAuthorization: mine\r\n{chooser}\r\n".encode())
        left = b"".join(bytes(peer.data) for peer in stage.seen)

    assert left.lower().count(b"authorization:") == 1
    assert f"Bearer s3cr3t-{spent}".encode() in left
    assert [record.grants for record in stage.guest.records] == [(spent,)]


@pytest.mark.parametrize(("size", "status"), [(40, b"200"), (41, b"413"), (4_000, b"413")])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_beyond_the_bound_of_a_required_placeholder_never_leaves(
    size: int, status: bytes, is_chunked: bool
) -> None:
    rule = ReplaceToken(Match(API), "placeholder", "s3cr3t-body", ("body",), limit_bytes=40, require=True)
    body = b'{"token": "placeholder", "rest": "' + b"x" * (size - 36) + b'"}'
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    head = b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\n%b\r\n\r\n" % framing
    async with a_stage(OK, rules=(rule,)) as stage:
        peer = await asked(stage, head + sent)
        left = b"".join(bytes(one.data) for one in stage.seen)

    assert len(body) == size
    assert peer.data.startswith(b"HTTP/1.1 " + status)
    assert (b"s3cr3t-body" in left, b"placeholder" in left) == (status == b"200", False)


async def test_a_granted_host_is_not_asked_what_the_policy_denies() -> None:
    policy = NetworkPolicy("strict", (), (parse_rule(f"deny POST {API}/admin/**"),))
    async with a_stage(OK, rules=(RULE,), policy=policy) as stage:
        denied = await asked(stage, b"POST /admin/x HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n\r\n")
        nothing = [bytes(peer.data) for peer in stage.seen]
        await asked(stage, b"POST /other HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n\r\n")
        left = b"".join(bytes(peer.data) for peer in stage.seen)

    assert denied.data.startswith(b"HTTP/1.1 403")
    assert nothing == []
    assert (left.count(TOKEN.encode()), b"/admin" in left) == (1, False)


@pytest.mark.parametrize("authority", [f"x.{API}", "example.com", f"{API}:8443", f"{API}.evil.test"])
async def test_a_credential_is_for_the_very_host_and_port_of_its_rule(authority: str) -> None:
    rule = SetHeader(Match(authority), "Authorization", f"Bearer {TOKEN}", "example")
    async with a_stage(OK, rules=(rule,), policy=NetworkPolicy("strict", (API, OTHER))) as stage:
        for host in (API, OTHER):
            await asked(stage, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), host)
        left = b"".join(bytes(peer.data) for peer in stage.seen)

    assert left.count(b"GET / ") == 2
    assert TOKEN.encode() not in left


INSIDE = ("/repos/a/b", "/repos/a", "/repos/a/b?x=/../..", "/repos/%61")
OUTSIDE = (
    *("/repo", "/reposx/a", "/repos/../admin", "/repos/%2e%2e/admin", "/repos/a/..;/x", "/repos/a%2fb", "/repos\\a"),
    *("//repos/a", "/x/repos/a", "/REPOS/a", "/repos/./a", "/?/repos/a", "/repos/%5c..", "/repos/%00"),
)


async def test_a_path_that_servers_may_read_in_two_ways_gets_no_credential_for_paths() -> None:
    rule = SetHeader(Match(API, paths=("/repos/**",)), "Authorization", f"Bearer {TOKEN}", "example")
    async with a_stage(OK, rules=(rule,)) as stage:
        for path in INSIDE + OUTSIDE:
            await stage.begin()
            await asked(stage, f"GET {path} HTTP/1.1\r\nHost: {API}\r\n\r\n".encode())
            left = b"".join(bytes(peer.data) for peer in stage.seen)

            assert f"GET {path} HTTP/1.1".encode() in left
            assert (TOKEN.encode() in left) == (path in INSIDE), path
