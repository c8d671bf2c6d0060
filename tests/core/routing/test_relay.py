from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from moat.routing import heads, relay
from moat.routing.relay import Peer, streams_of

pytestmark = pytest.mark.timeout(60)
Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def relayed(request: bytes, script: Script) -> AsyncIterator[Peer]:
    """A client whose request is passed to script; yields the client's end."""
    near, ours = socket.socketpair()
    theirs, far = socket.socketpair()
    client, left = await streams_of(near, 65_536), await streams_of(ours, 65_536)
    right, run = await streams_of(theirs, 65_536), await streams_of(far, 65_536)

    async def pass_on() -> None:
        asked = heads.read_request(await left.reader.readuntil(b"\r\n\r\n"))
        await relay.relay(left, right, asked, "http")
        for peer in (left, right):
            peer.abort()

    async with asyncio.TaskGroup() as group:
        group.create_task(pass_on())
        group.create_task(script(run))  # type: ignore[arg-type] # coroutines, all of them
        await client.send(request)
        try:
            async with asyncio.timeout(30):
                yield client
        finally:
            for peer in (client, run):
                peer.abort()


async def test_a_body_goes_in_as_long_as_its_head_says_and_no_longer() -> None:
    got: list[bytes] = []

    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        got.append(await peer.reader.readexactly(5))
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\ndone")
        await peer.finish()
        got.append(await peer.reader.read())

    async with relayed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345GET /evil", run) as client:
        assert (await client.reader.read()).endswith(b"done")

    assert got[0] == b"12345"
    assert got[1] == b""


async def test_interim_answers_come_first() -> None:
    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(2) == b"ab"
        await peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await peer.finish()

    async with relayed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", run) as client:
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"ab")
        assert b"201 Created" in await client.reader.read()


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 103 E\r\n\r\n" * 20], ids=lambda text: text[:12]
)
async def test_a_program_that_does_not_speak_http_is_a_502(answer: bytes) -> None:
    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)
        peer.abort()

    async with relayed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", run) as client:
        assert b"HTTP/1.1 502 " in await client.reader.read()


async def test_an_answer_that_comes_before_the_body_was_read_is_told() -> None:
    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        peer.abort()

    async with relayed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nabc", run) as client:
        assert b"413 No" in await client.reader.read()


async def test_a_client_that_goes_away_ends_the_request_inside() -> None:
    ended = asyncio.Event()

    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        assert await peer.reader.read() == b""
        ended.set()

    async with relayed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", run) as client:
        client.abort()
        await ended.wait()


async def test_after_an_upgrade_bytes_go_both_ways_until_both_have_said_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LINGER_S", 30.0)

    async def run(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
        assert await peer.reader.read() == b"\x00\x01bye"
        await peer.send(b"last")
        await peer.finish()

    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    async with relayed(head, run) as client:
        await client.reader.readuntil(b"hello")
        await client.send(b"\x00\x01bye")
        await client.finish()
        assert await client.reader.read() == b"last"
