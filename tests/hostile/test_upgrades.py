"""An upgrade is never a tunnel in which later requests go unread: not past rules, not with a credential."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from core.proxy.server.house_of import Guest, a_house
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.rules import Match, RemoveHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.net.rules import parse_rule
from moat.proxy.server.tls import TlsStream
from support.proxied import RULE
from support.upstream import make_test_ca
from support.worker import RUN, a_run

HOST = "api.example.com"
CA = make_test_ca()
SETTINGS = "HTTP2-Settings: AAMAAABkAAQAAP__"
PATHS = NetworkPolicy("permissive", rules=(parse_rule(f"deny * {HOST}/secret/**"),))
SECOND = f"GET /secret/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Willing:
    """A server that changes to whatever it is asked for, or to `says`; without Upgrade it answers plainly."""

    says: str = ""
    is_declining: bool = False
    heads: list[bytes] = field(default_factory=list)
    raw: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                asked = [line[9:] for line in head.decode().split("\r\n") if line.lower().startswith("upgrade: ")]
                if (asked or self.says) and not self.is_declining:
                    named = (self.says or asked[0]).encode()
                    writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: " + named + b"\r\n\r\n")
                    self.raw += await reader.read(65_536)
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        writer.close()


@contextlib.asynccontextmanager
async def before(service: Willing, context: RunContext) -> AsyncIterator[tuple[Guest, TlsStream]]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=CA.server_context(HOST))
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with a_house(context, roots=CA.pem, resolve={HOST: pin}) as guest:
            yield guest, await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
    finally:
        server.close()


def asking(*lines: str, method: str = "GET") -> bytes:
    lines = (f"{method} /open HTTP/1.1", f"Host: {HOST}", "Connection: Upgrade, HTTP2-Settings", *lines)
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ("Upgrade: h2c", SETTINGS),
        ("Upgrade: H2C, foo/1", SETTINGS),
        ("Upgrade: foo/1", "Upgrade: h2c", SETTINGS),
        ("Upgrade: h2c, h2c-14", SETTINGS),
        ("Upgrade: TLS/1.2, HTTP/2.0",),
        ("Upgrade: websocket", "Content-Length: 0", "Transfer-Encoding: chunked"),
    ],
    ids=["h2c", "h2c and another", "two fields", "drafts", "TLS", "two framings"],
)
@pytest.mark.parametrize(
    "context", [a_run(rules=(RULE,)), a_run(policy=PATHS)], ids=["with a credential", "with rules by path"]
)
async def test_what_changes_to_http_again_is_never_offered_on(lines: tuple[str, ...], context: RunContext) -> None:
    service = Willing()
    async with before(service, context) as (guest, client):
        answer = await guest.ask(client, asking(*lines), b"\r\n\r\n")

    assert b" 101 " not in answer
    assert b"h2c" not in b"".join(service.heads).lower()
    assert b"upgrade" not in b"".join(service.heads).lower()
    assert b"settings" not in b"".join(service.heads).lower()


async def test_h2c_is_ignored_and_what_follows_is_judged_as_requests() -> None:
    service = Willing()
    async with before(service, a_run(policy=PATHS)) as (guest, client):
        answer = await guest.ask(client, asking("Upgrade: h2c", SETTINGS) + SECOND, b"--rule")
        after = await guest.ask(client, PREFACE, b"400 ")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 403 " in answer
    assert after.startswith(b"HTTP/1.1 400 ")
    assert len(service.heads) == 1


@pytest.mark.parametrize("protocol", ["websocket", "SPDY/3.1"])
async def test_what_follows_an_upgrade_that_is_declined_is_judged_as_requests(protocol: str) -> None:
    service = Willing(is_declining=True)
    async with before(service, a_run(policy=PATHS)) as (guest, client):
        answer = await guest.ask(client, asking(f"Upgrade: {protocol}") + SECOND, b"--rule")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 403 " in answer
    assert [head.split(b" ")[1] for head in service.heads] == [b"/open"]


async def test_an_upgrade_with_a_body_is_none_and_what_follows_is_judged() -> None:
    service = Willing()
    async with before(service, a_run(policy=PATHS)) as (guest, client):
        sent = asking("Upgrade: SPDY/3.1", f"Content-Length: {len(PREFACE)}", method="POST") + PREFACE + SECOND
        answer = await guest.ask(client, sent, b"--rule")

    assert b" 101 " not in answer
    assert b"HTTP/1.1 403 " in answer
    assert b"pgrade" not in service.heads[0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("websocket", "h2c"), ("websocket", "foo/1"), ("SPDY/3.1", "websocket"), ("websocket", "websocket, h2c")],
)
async def test_a_101_for_another_protocol_than_was_asked_for_is_a_502(asked: str, said: str) -> None:
    service = Willing(says=said)
    async with before(service, a_run(rules=(RULE,))) as (guest, client):
        answer = await guest.ask(client, asking(f"Upgrade: {asked}") + SECOND, b"another protocol")
        client.close()

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert SECOND not in service.raw


async def test_a_101_that_nobody_asked_for_is_a_502() -> None:
    service = Willing(says="websocket")
    async with before(service, a_run()) as (guest, client):
        answer = await guest.ask(client, asking("Upgrade: h2c", SETTINGS), b"unasked")

    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (a_run(rules=(RULE,)), "credentials are for"),
        (a_run(rules=(RemoveHeader(Match(HOST), "X"),)), "credentials are for"),
        (a_run(policy=PATHS), "apart"),
        (a_run(policy=NetworkPolicy("permissive", rules=(parse_rule("deny DELETE *"),))), "apart"),
        (a_run(policy=NetworkPolicy("strict", rules=(parse_rule(f"allow GET {HOST}"),))), "apart"),
    ],
    ids=["a credential", "a rule of a grant", "paths", "methods", "allowed methods"],
)
async def test_bytes_that_nobody_can_read_do_not_pass_where_requests_are_judged(context: RunContext, why: str) -> None:
    service = Willing()
    async with before(service, context) as (guest, client):
        answer = await guest.ask(client, asking("Upgrade: foo/1"), b"pass here")
        websocket = await guest.ask(client, asking("Upgrade: foo/1, websocket"), b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"X-Moat-Blocked: upgrade" in answer
    assert why.encode() in answer
    assert websocket.startswith(b"HTTP/1.1 101 ")
    assert len(service.heads) == 1


async def test_where_every_request_may_go_so_may_bytes() -> None:
    service = Willing()
    for policy in (NetworkPolicy(), NetworkPolicy("strict", (HOST,)), NetworkPolicy(rules=(parse_rule("deny * a.b"),))):
        async with before(service, a_run(policy=policy)) as (guest, client):
            assert (await guest.ask(client, asking("Upgrade: foo/1"), b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("path", ["/below", ""], ids=["below a path", "anywhere"])
async def test_at_an_endpoint_that_leads_below_a_path_bytes_do_not_pass(path: str) -> None:
    service = Willing()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    endpoint = Endpoint(ProxyPath("/_moat/it/"), Forward(Upstream("it.example", tls=False, path=path)))
    context = replace(a_run(), endpoints=(endpoint,))
    async with a_house(context, resolve={"it.example": pin}) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        sent = asking("Upgrade: foo/1").replace(b"/open", b"/_moat/it/x").replace(HOST.encode(), b"127.0.0.1:19080")
        answer = await guest.ask(client, sent, b"\r\n\r\n")
    server.close()

    assert answer.startswith(b"HTTP/1.1 403 " if path else b"HTTP/1.1 101 ")
