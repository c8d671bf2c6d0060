"""Clients and upstreams of HTTP/2 at a token endpoint: the same rules, the same placeholders."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from core.proxy.server.h2_peers import HOST, Peer, h2_client, h2_house, h2_server, tls_client
from core.proxy.server.house_of import Guest
from core.proxy.server.pairs import until
from h2 import events
from moat.api.rules import CaptureToken, Instead, Match, ReplaceToken, RewriteResponse
from moat.proxy.messages import Ask, Captured, Kept
from support.worker import a_run

ACCESS, REFRESH = "moat-access-placeholder", "moat-refresh-placeholder"
AT_TOKENS = Match(HOST, ("POST",), ("/token",))
RULES = (
    ReplaceToken(AT_TOKENS, REFRESH, "s3cr3t-refresh", ("body",), grant="g"),
    CaptureToken(AT_TOKENS, "g", {"refresh_token": REFRESH}, {"access_token": ACCESS, "refresh_token": REFRESH}),
    RewriteResponse(Match(HOST, (), ("/profile",)), Instead(200, "{}"), (403,), (), grant="g"),
)
ASKED = json.dumps({"refresh_token": REFRESH}).encode()


def service(peer: Peer, event: events.Event) -> None:
    """Hand out a token at the end of any request but one for the profile."""
    if isinstance(event, events.StreamEnded):
        if peer.fields(event.stream_id)[":path"] == "/profile":
            return peer.send(event.stream_id, (":status", "403"), data=b"x" * 10_000, end=True)
        given = json.dumps({"access_token": "s3cr3t-access", "refresh_token": "s3cr3t-next"}).encode()
        head = ((":status", "200"), ("content-type", "application/json"), ("content-length", str(len(given))))
        peer.send(event.stream_id, *head, data=given, end=True)
    return None


def obey(guest: Guest, problem: str = "") -> list[Captured]:
    """Answer as the daemon would; return what it is told."""
    told: list[Captured] = []

    def answer(message: Ask | Captured) -> None:
        assert isinstance(message, Captured)
        told.append(message)
        asyncio.get_running_loop().call_soon(guest.house.answered, Kept(message.id, problem))

    guest.house._captures._send = answer
    guest.house.put(replace(a_run(), rules=RULES), {})
    return told


@pytest.mark.parametrize("problem", ["", "the keyring is locked"])
async def test_a_client_of_http_2_gets_placeholders_or_an_error(problem: str) -> None:
    async with h2_server(service) as server, h2_house(server.port) as guest:
        told = obey(guest, problem)
        client = await h2_client(guest)
        seen = []
        for _ in range(2):
            stream = client.ask("/token", ("content-type", "application/json"), method="POST", end=False)
            client.send(stream, data=ASKED, end=True)
            answer = await client.answered(stream)
            seen.append((answer[":status"], client.body(stream)))
        rewritten = await client.answered(client.ask("/profile"))
        await until(lambda: len(guest.records) == 3)

    assert {message.tokens["access_token"] for message in told} == {"s3cr3t-access"}
    assert rewritten[":status"] == "200"
    assert rewritten["x-moat-rewritten"] == "g"
    assert all(b"s3cr3t" not in body for _, body in seen)
    if problem:
        assert [status for status, _ in seen] == ["503", "503"]
    else:
        assert [json.loads(body) for _, body in seen] == [{"access_token": ACCESS, "refresh_token": REFRESH}] * 2
        assert len(told) == 1
        assert server.peers[0].body(1) == b'{"refresh_token": "s3cr3t-refresh"}'


async def test_a_client_of_http_1_gets_them_from_an_upstream_that_speaks_http_2_only() -> None:
    async with h2_server(service) as server, h2_house(server.port) as guest:
        told = obey(guest)
        stream = await tls_client(guest, "http/1.1")
        head = f"POST /token HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(ASKED)}"
        asked = head.encode() + b"\r\n\r\n" + ASKED
        answers = b""
        for number in (1, 2):  # the second is answered from memory, and its body is no request
            stream.write(asked)
            while answers.count(ACCESS.encode()) < number:
                assert await stream.more()
                answers += bytes(stream.buffer)
                stream.buffer.clear()
        await until(lambda: len(guest.records) == 2)

    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"s3cr3t" not in answers
    assert len(told) == 1
