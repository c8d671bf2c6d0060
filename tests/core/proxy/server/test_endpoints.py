"""How a place serves a connection; with real clients and processes: tests/integration/test_places.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, Forward, Reply, Respond, Stream, Tcp, UnixPath, Upstream
from moat.api.runs import RunContext
from moat.proxy.limits import Limits
from moat.proxy.server.connection import Connection
from moat.proxy.server.endpoints import find_place, serve_endpoint
from moat.proxy.server.guesses import Challenge, Guesses
from moat.proxy.server.stream import PlainStream
from support.worker import RUN, a_run

from core.proxy.server.house_of import Guest, a_house, scripted
from core.proxy.server.pairs import plain_pair, until

FAR = Upstream("far.example:9", tls=False)
BYTES = Endpoint(Tcp("bytes.internal", 9, tls=False), Stream(FAR))
WORDS = Endpoint(UnixPath("/run/w.sock"), Respond("w", Reply(body=b"words")))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def having(*endpoints: Endpoint) -> RunContext:
    return replace(a_run(), endpoints=endpoints)


async def at(guest: Guest, where: Tcp | UnixPath) -> tuple[PlainStream, Connection, asyncio.Task[None]]:
    """Return the client's end of a connection to a place, and what serves the other."""
    services = guest.house._services
    assert services is not None
    client, door = await plain_pair()
    connection = Connection(services, Challenge(Guesses(lambda _: None)), RUN)
    guest.streams += (client, door)  # a house closes the door when what serves it is cancelled
    return client, connection, guest.house._group.create_task(serve_endpoint(connection, door, where))


async def test_bytes_go_to_the_upstream_and_the_connection_is_remembered_as_a_tunnel() -> None:
    async with scripted(OK) as (pin, heads), a_house(having(BYTES), resolve={"far.example": pin}) as guest:
        client, connection, task = await at(guest, Tcp("bytes.internal", 9, tls=False))
        answer = await guest.ask(client, b"anything\r\n\r\n", b"ok")
        run = guest.house._admission.by_id(RUN)
        assert run is not None
        assert connection.outlived(run) == ""
        guest.house.put(having(), {})
        run = guest.house._admission.by_id(RUN)
        assert run is not None
        connection.end_outlived(run, task)
        await until(lambda: len(guest.records) == 1)

    assert (answer, heads) == (OK, [b"anything\r\n\r\n"])
    assert guest.records[0].reason == "its endpoint is gone"
    assert (guest.records[0].request_bytes, guest.records[0].response_bytes) == (12, len(OK))


async def test_what_streams_in_clear_is_not_told_to_a_proxy() -> None:
    async with scripted(OK) as (pin, heads), a_house(having(BYTES), proxy=f"http://{pin}") as guest:
        client, _, _ = await at(guest, Tcp("bytes.internal", 9, tls=False))
        client.write(b"anything\r\n\r\n")
        assert not await client.more()

    assert heads == []
    assert "upstream.no_proxy" in guest.records[0].reason


async def test_a_client_that_says_all_and_ends_gets_the_answer_of_the_service() -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer_at_the_end, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with a_house(having(BYTES), resolve={"far.example": pin}) as guest:
        client, _, _ = await at(guest, Tcp("bytes.internal", 9, tls=False))
        client.write(b"hello")
        client.end()
        answer = await guest.ask(client, b"", b"heard hello")
        await until(lambda: len(guest.records) == 1)
    server.close()

    assert answer == b"heard hello"
    assert (guest.records[0].outcome, guest.records[0].reason) == ("forwarded", "")


async def test_a_service_that_cannot_be_reached_ends_the_connection() -> None:
    async with a_house(having(BYTES), resolve={"far.example": "127.0.0.1:1"}) as guest:
        client, _, _ = await at(guest, Tcp("bytes.internal", 9, tls=False))

        assert not await client.more()
        await until(lambda: len(guest.records) == 1)
    assert (guest.records[0].status, guest.records[0].outcome) == (502, "failed")


async def test_a_run_that_is_gone_has_no_places() -> None:
    async with a_house(having(BYTES)) as guest:
        services = guest.house._services
        assert services is not None
        connection = Connection(services, Challenge(Guesses(lambda _: None)), RUN)
        assert find_place(connection, "bytes.internal", 9) == BYTES.where
        guest.house.drop(RUN)

        assert find_place(connection, "bytes.internal", 9) is None
        client, _, _ = await at(guest, Tcp("bytes.internal", 9, tls=False))
        assert not await client.more()


@pytest.mark.parametrize(
    "pieces", [[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], [b"P", b"RI * HTTP/2.0\r\n\r\nSM\r\n", b"\r\n"]]
)
async def test_http_2_is_spoken_to_who_begins_so(pieces: list[bytes]) -> None:
    async with a_house(having(WORDS)) as guest:
        client, _, _ = await at(guest, UnixPath("/run/w.sock"))
        for piece in pieces:
            client.write(piece)
            await asyncio.sleep(0)
        client.write(b"\0\0\0\x04\0\0\0\0\0")
        assert await client.more()

        assert client.buffer[3] == 4  # SETTINGS


async def test_who_begins_like_it_and_goes_on_otherwise_speaks_http_1() -> None:
    async with a_house(having(WORDS)) as guest:
        client, _, _ = await at(guest, UnixPath("/run/w.sock"))
        client.write(b"P")
        await asyncio.sleep(0)
        answer = await guest.ask(client, b"UT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"words")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_says_nothing_is_let_go() -> None:
    async with a_house(having(WORDS), limits=Limits(handshake_s=0.02)) as guest:
        client, _, _ = await at(guest, UnixPath("/run/w.sock"))

        assert not await client.more()


async def test_what_forwards_serves_requests_one_after_the_other() -> None:
    endpoint = Endpoint(UnixPath("/run/f.sock"), Forward(FAR))
    async with scripted(OK, OK) as (pin, heads), a_house(having(endpoint), resolve={"far.example": pin}) as guest:
        client, _, _ = await at(guest, UnixPath("/run/f.sock"))
        for _ in range(2):
            assert (await guest.ask(client, b"GET /x HTTP/1.1\r\nHost: y\r\n\r\n", b"ok")).endswith(b"ok")

    assert [head.split(b"\r\n")[:2] for head in heads] == [[b"GET /x HTTP/1.1", b"Host: far.example:9"]] * 2
