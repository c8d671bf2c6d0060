"""HTTP/2 clients over upstreams that speak only HTTP/1.1; over HTTP/2 see test_h2_exchange."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest
from moat.proxy.bodies import ChunkedReader
from moat.proxy.http2 import INTERNAL_ERROR, NO_ERROR, Http2
from moat.proxy.limits import Limits
from moat.proxy.server.h2_far import OverHttp2
from moat.proxy.server.h2_link import Link
from moat.proxy.server.stream import HIGH_BYTES, PlainStream

from core.proxy.server.h2_peers import SECRET, Client, h2_client, h2_house, server_context
from core.proxy.server.pairs import plain_pair, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Http1:
    """A TLS server that speaks only HTTP/1.1: reads until what is given, then answers, again and again."""

    def __init__(self, *turns: tuple[bytes, bytes]) -> None:
        self.turns = list(turns)
        self.read: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while self.turns:
                until, answer = self.turns[0]
                got = await reader.readuntil(until)
                self.turns.pop(0)
                self.read.append(got)
                writer.write(answer.removeprefix(b"!"))
                if answer.startswith(b"!"):
                    break
            else:
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def http1(*turns: tuple[bytes, bytes], limit: int = 2**16) -> AsyncIterator[Http1]:
    server = Http1(*turns)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_context("http/1.1"), limit=limit)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


END = b"\r\n\r\n"


async def test_requests_go_out_as_http_1_and_the_connection_is_kept() -> None:
    async with http1((END, OK), (END, OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        for path in ("/1", "/2"):
            stream = client.ask(path, ("x", "y"), ("cookie", "a=1"), ("cookie", "b=2"))
            answer = await client.answered(stream)

    assert (answer[":status"], client.body(stream)) == ("200", b"ok")
    assert server.connections == 1
    head = server.read[0].decode().split("\r\n")
    assert head[:2] == ["GET /1 HTTP/1.1", "Host: a.example"]
    assert {"x: y", "cookie: a=1; b=2", f"Authorization: {SECRET}"} <= set(head)


@pytest.mark.parametrize("name", ["x_http_method_override", "x_api_key", "content_length"])
async def test_a_name_that_a_cgi_takes_for_another_reaches_no_http_1_upstream(name: str) -> None:
    async with http1((END, OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask("/", ("content-type", "application/grpc"), (name, "5")))
        await client.answered(client.ask("/", ("content-type", "application/grpc"), ("x-fine", "5")))

    assert (answer[":status"], answer["grpc-status"]) == ("200", "13")
    assert "HTTP/2 only" in answer["grpc-message"]
    assert [b"x-fine: 5" in head for head in server.read] == [True]


async def test_a_body_of_unknown_length_goes_out_in_chunks_with_its_trailers() -> None:
    async with http1((b"0\r\nx-sum: 3\r\n\r\n", OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        client.send(stream, data=b"one")
        client.send(stream, data=b"two")
        client.send(stream, ("x-sum", "3"), end=True)
        await client.answered(stream)

    assert b"Transfer-Encoding: chunked\r\n" in server.read[0]
    assert server.read[0].partition(END)[2] in (b"3\r\none\r\n3\r\ntwo\r\n0\r\nx-sum: 3\r\n\r\n",
                                                b"6\r\nonetwo\r\n0\r\nx-sum: 3\r\n\r\n")  # fmt: skip


async def test_three_megabytes_of_unknown_length_arrive_whole() -> None:
    body = b"".join(number.to_bytes(4) for number in range(750_000))
    async with http1((b"\r\n0\r\n\r\n", OK), limit=2**23) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream, at = client.ask(method="POST", end=False), 0
        while at < len(body):
            await client.until(lambda: client.h2.local_flow_control_window(stream) > 0)
            room = min(client.h2.local_flow_control_window(stream), 16_384)
            client.send(stream, data=body[at : at + room])
            at += room
        client.h2.end_stream(stream)
        client.flush()
        await client.answered(stream)

    chunked = bytearray(server.read[0].partition(END)[2])
    assert ChunkedReader().take(chunked) == body


async def test_a_body_of_known_length_keeps_it() -> None:
    async with http1((b"four", OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask("/", ("content-length", "4"), method="POST", end=False)
        client.send(stream, data=b"four", end=True)
        await client.answered(stream)

    assert b"Content-Length: 4\r\n" in server.read[0]
    assert b"chunked" not in server.read[0]


@pytest.mark.parametrize(
    ("answer", "body", "field"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n", b"ok",
         ("grpc-status", "0")),
        (b"!HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nuntil the end", b"until the end", ("x-a", "b")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok", ("link", "x")),
        (b"HTTP/1.1 204 No Content\r\nKeep-Alive: 5\r\n\r\n", b"", (":status", "204")),
    ],
    ids=["chunked with trailers", "until close", "interim", "no body"],
)  # fmt: skip
async def test_answers_arrive_whole(answer: bytes, body: bytes, field: tuple[str, str]) -> None:
    async with http1((END, answer)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        fields = await client.answered(stream)

    assert client.body(stream) == body
    assert field in fields.items()
    assert not {"transfer-encoding", "connection", "keep-alive"} & fields.keys()


async def test_an_answer_that_breaks_off_is_a_reset() -> None:
    cut = b"!HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"
    async with http1((END, cut)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        await client.answered(stream)
        await until(lambda: bool(guest.records))

    assert client.reset_code(stream) == INTERNAL_ERROR
    assert guest.records[0].reason == "the upstream broke off"


@pytest.mark.parametrize("answer", [b"!", b"!nonsense\r\n\r\n", b"!HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n"])
async def test_an_upstream_that_makes_no_sense_is_a_502(answer: bytes) -> None:
    async with http1((END, answer)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)

        assert (await client.answered(client.ask()))[":status"] == "502"


async def test_a_kept_connection_that_was_closed_is_replaced_without_the_client_noticing() -> None:
    async with http1((END, OK), (END, b"!"), (END, OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        await client.answered(client.ask("/1"))
        again = await client.answered(client.ask("/2"))

    assert again[":status"] == "200"
    assert len(server.read) == 3


async def test_an_early_answer_stops_the_body_and_the_connection_is_not_used_again() -> None:
    async with http1((END, OK), (END, OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        await client.answered(stream)
        await client.until(lambda: client.reset_code(stream) is not None)
        await client.answered(client.ask())

    assert client.reset_code(stream) == NO_ERROR
    assert server.connections == 2


class Deaf(Http1):
    """Reads a head and nothing else, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(END)
        await self.go.wait()
        writer.close()


async def test_an_upstream_that_stops_reading_in_the_middle_of_an_upload_is_a_504() -> None:
    server = Deaf()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_context("http/1.1"))
    port = listening.sockets[0].getsockname()[1]
    async with h2_house(port, limits=Limits(upload_idle_s=0.2)) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        async with asyncio.timeout(30):
            while not client.ended(stream):
                while (room := min(client.h2.local_flow_control_window(stream), 16_384)) > 0:
                    client.send(stream, data=bytes(room))
                seen = len(client.seen)
                await client.until(partial(_has_more, client, seen))
        server.go.set()
    listening.close()

    assert client.fields(stream)[":status"] == "504"
    assert b"upstream.upload_idle_minutes" in client.body(stream)


def _has_more(client: Client, seen: int) -> bool:
    return len(client.seen) > seen


async def test_a_connection_that_takes_nothing_is_not_asked_for_more() -> None:
    for is_stuck in (False, True):
        ours, theirs = await plain_pair()
        theirs.pause()
        link = Link(ours, Http2(is_client=True))
        ours.write(bytes(8 * HIGH_BYTES if is_stuck else 1))
        await until(partial(_is_full, ours, is_stuck))
        OverHttp2(link, is_reused=False).give_up()

        assert link.is_leaving == is_stuck
        ours.abort()
        theirs.abort()


def _is_full(stream: PlainStream, expected: bool) -> bool:
    return stream.is_full == expected


async def test_cancelling_closes_the_upstream_connection() -> None:
    async with (
        http1((END, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin")) as server,
        h2_house(server.port) as guest,
    ):
        client = await h2_client(guest)
        stream = client.ask()
        await client.until(lambda: client.body(stream) == b"begin")
        client.reset(stream)
        await until(lambda: bool(guest.records))

    assert guest.records[0].reason == "the client went away"


async def test_streams_at_once_have_a_connection_each() -> None:
    async with http1(*[(END, OK)] * 4) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        streams = [client.ask(f"/{number}") for number in range(4)]
        answers = [await client.answered(stream) for stream in streams]

    assert {answer[":status"] for answer in answers} == {"200"}
    assert 1 <= server.connections <= 4
