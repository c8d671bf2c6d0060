"""Client and upstream end in every order and manner, at every stage: one record each time, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from core.proxy.server.house_of import a_house
from core.proxy.server.pairs import until
from moat.proxy.limits import Limits
from support.worker import RUN, a_run

STAGES = {
    "before the answer": b"",
    "after its head": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    "in its body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
}
GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
UPLOAD = b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n12345"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing resets


def end(sock: socket.socket, how: str) -> None:
    """End a connection: `half` ends what is sent, `close` both ways, `reset` at once."""
    if how == "half":
        return sock.shutdown(socket.SHUT_WR)
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return sock.close()


@dataclass
class Service:
    """Takes one connection and says something. said: when it has; is_over: when its peer has ended."""

    says: bytes
    sock: socket.socket = field(default_factory=socket.socket)
    taken: list[socket.socket] = field(default_factory=list)

    async def talk(self) -> None:
        """Take a connection, read the request's head, say what is said."""
        loop = asyncio.get_running_loop()
        taken, _ = await loop.sock_accept(self.sock)
        taken.setblocking(False)
        self.taken.append(taken)
        got = b""
        while b"\r\n\r\n" not in got:
            got += await loop.sock_recv(taken, 4_096)
        await loop.sock_sendall(taken, self.says)

    async def is_left(self) -> None:
        """Wait until its peer has ended, however."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(self.taken[0], 4_096):
                pass


@contextlib.asynccontextmanager
async def serving(says: bytes) -> AsyncIterator[tuple[Service, str]]:
    service = Service(says)
    service.sock.setblocking(False)
    service.sock.bind(("127.0.0.1", 0))
    service.sock.listen()
    try:
        yield service, f"127.0.0.1:{service.sock.getsockname()[1]}"
    finally:
        for sock in (service.sock, *service.taken):
            sock.close()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("request_", [GET, UPLOAD], ids=["a request", "an upload"])
@pytest.mark.parametrize("how", ["half", "close", "reset"])
async def test_a_client_that_ends_ends_the_upstreams_connection_too(how: str, request_: bytes, stage: str) -> None:
    async with serving(STAGES[stage]) as (service, pin), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = socket.create_connection(guest.listen(RUN, "proxy"))
        client.send(request_)
        async with asyncio.timeout(30):
            await service.talk()
            if stage != "before the answer":
                await until(lambda: bool(guest.house._rooms[RUN].connections))
                client.setblocking(False)
                await asyncio.get_running_loop().sock_recv(client, 1)  # so the answer has begun
            end(client, how)
            await service.is_left()
            await until(lambda: len(guest.records) == 1 and not guest.house._rooms[RUN].connections)
        client.close()

    assert guest.records[0].reason == "the client went away"
    assert guest.records[0].status == (0 if stage == "before the answer" else 200)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["half", "close", "reset"])
async def test_an_upstream_that_ends_is_a_502_or_a_break(how: str, stage: str) -> None:
    async with serving(STAGES[stage]) as (service, pin), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = socket.create_connection(guest.listen(RUN, "proxy"))
        client.setblocking(False)
        loop, got = asyncio.get_running_loop(), b""
        await loop.sock_sendall(client, GET)
        async with asyncio.timeout(30):
            await service.talk()
            if stage != "before the answer":
                got += await loop.sock_recv(client, 1)
            end(service.taken[0], how)
            await until(lambda: len(guest.records) == 1)
            while b"moat: " not in got and (piece := await received(client)):
                got += piece
        client.close()

    record = guest.records[0]
    if stage == "before the answer":
        assert got.startswith(b"HTTP/1.1 502 ")
        assert (record.status, record.reason) == (502, "a.example closed the connection without an answer")
    else:
        assert got.startswith(b"HTTP/1.1 200 ")
        assert not got.endswith(b"\r\n0\r\n\r\n")  # which would end the chunks as if they were all
        assert (record.status, record.reason) == (200, "the upstream broke off")


async def received(client: socket.socket) -> bytes:
    """Return some of what came; nothing at the end, and at a break."""
    try:
        return await asyncio.get_running_loop().sock_recv(client, 4_096)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(("first", "second"), [("client", "upstream"), ("upstream", "client")])
@pytest.mark.parametrize("how", list(itertools.product(["half", "close", "reset"], repeat=2)), ids=" ".join)
async def test_both_at_once_are_one_record_and_nothing_stays(first: str, second: str, how: tuple[str, str]) -> None:
    async with (
        serving(STAGES["in its body"]) as (service, pin),
        a_house(a_run(), resolve={"a.example": pin}, limits=Limits(linger_s=0.01)) as guest,
    ):
        client = socket.create_connection(guest.listen(RUN, "proxy"))
        client.send(GET)
        async with asyncio.timeout(30):
            await service.talk()
            ends = {"client": client, "upstream": service.taken[0]}
            end(ends[first], how[0])
            end(ends[second], how[1])
            await until(lambda: len(guest.records) == 1 and not guest.house._rooms[RUN].connections)
            for _ in range(100):
                await asyncio.sleep(0)
        client.close()

    assert len(guest.records) == 1
    assert guest.records[0].outcome in ("forwarded", "failed")
