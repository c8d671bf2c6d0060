"""Clients of HTTP/1.1 and an upstream that speaks nothing but HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator

import pytest
from h2 import events
from moat.proxy.limits import Limits
from moat.proxy.server.tls import TlsStream

from core.proxy.server.h2_peers import HOST, SECRET, Peer, Server, h2_house, h2_server, ok, tls_client
from core.proxy.server.house_of import Guest
from core.proxy.server.pairs import flows, until

END = b"\r\n\r\n"


@contextlib.asynccontextmanager
async def asking(server: Server, limits: Limits | None = None) -> AsyncIterator[tuple[TlsStream, Guest]]:
    async with h2_house(server.port, limits=limits) as guest:
        client = await tls_client(guest, "http/1.1")
        yield client, guest
        client.abort()


async def ask(client: TlsStream, request: bytes, until_bytes: bytes = END) -> bytes:
    """Send bytes and return what came back, once it holds until_bytes or the connection ends."""
    client.write(request)
    async with asyncio.timeout(30):
        while until_bytes not in client.buffer and await flows(client):
            pass
    answer = bytes(client.buffer)
    client.buffer.clear()
    return answer


def request(method: str = "GET", path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", f"Host: {HOST}", *lines, "", "")).encode()


def asked(server: Server, number: int = 1) -> dict[str, str]:
    """Return the fields of a request, of whichever connection carried one."""
    return next(fields for peer in server.peers if (fields := peer.fields(number)))


async def test_requests_are_answered_over_one_connection_and_spend_the_credential() -> None:
    async with h2_server() as server, asking(server) as (client, guest):
        answers = [await ask(client, request("GET", f"/{n}", "X-Mine: 1", "TE: trailers, deflate"), b"ok")
                   for n in range(3)]  # fmt: skip
        await until(lambda: len(guest.records) == 3)

    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 3
    assert b"transfer-encoding: chunked\r\n" in answers[0]
    fields = asked(server)
    assert (fields[":method"], fields[":path"], fields[":authority"]) == ("GET", "/0", HOST)
    assert (fields["authorization"], fields["x-mine"]) == (SECRET, "1")
    assert fields["te"] == "trailers"
    assert not {"connection", "host"} & fields.keys()
    carrying = [peer for peer in server.peers if peer.fields(1)]
    assert len(carrying) == 1
    assert {(record.status, record.grants) for record in guest.records} == {(200, ("example",))}


async def test_an_answer_is_decoded_for_itself_and_not_as_the_one_before() -> None:
    def answer(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            coding = [("content-encoding", "gzip")] if event.stream_id == 1 else []
            body = gzip.compress(b"packed") if coding else b"plain"
            peer.send(event.stream_id, (":status", "200"), *coding, data=body, end=True)

    async with h2_server(answer) as server, asking(server) as (client, _):
        answers = [await ask(client, request(), b"0\r\n\r\n") for _ in range(2)]

    assert [(b"packed" in answer, b"plain" in answer) for answer in answers] == [(True, False), (False, True)]


async def test_nothing_of_a_request_is_sent_before_the_version_is_settled() -> None:
    async with h2_server() as server, asking(server) as (client, _):
        await ask(client, request("POST", "/", "Content-Length: 3") + b"one", b"ok")

    assert sum(len(peer.of(events.RequestReceived, 1)) for peer in server.peers) == 1


async def test_a_body_of_unknown_length_and_its_trailers_go_both_ways() -> None:
    def echo(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.StreamEnded):
            number = event.stream_id
            peer.send(number, (":status", "200"), data=peer.body(number))
            peer.send(number, ("x-sum", peer.fields(number)["x-sum"]), end=True)

    async with h2_server(echo) as server, asking(server) as (client, _):
        head = request("POST", "/", "Transfer-Encoding: chunked", "Trailer: x-sum")
        answer = await ask(client, head + b"3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 6\r\n\r\n", b"x-sum: 6\r\n\r\n")
        again = await ask(client, head + b"0\r\nX-Sum: 0\r\n\r\n", b"x-sum: 0\r\n\r\n")

    assert answer.endswith(b"6\r\nonetwo\r\n0\r\nx-sum: 6\r\n\r\n")
    assert "transfer-encoding" not in asked(server)
    assert again.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_large_body_passes_both_ways_within_windows() -> None:
    def length(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.StreamEnded):
            body = str(len(peer.body(event.stream_id))).encode()
            peer.send(event.stream_id, (":status", "200"), ("content-length", str(len(body))), data=body, end=True)

    async with h2_server(length) as server, asking(server) as (client, _):
        big = b"x" * 3_000_000
        answer = await ask(client, request("POST", "/", f"Content-Length: {len(big)}") + big, b"3000000")

    assert b"content-length: 7\r\n" in answer
    assert asked(server)["content-length"] == "3000000"


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("HEAD", ((":status", "200"), ("content-length", "9")), b"content-length: 9\r\n"),
        ("GET", ((":status", "204"),), b"HTTP/1.1 204 No Content\r\n"),
        ("GET", ((":status", "304"), ("etag", "x")), b"HTTP/1.1 304 Not Modified\r\n"),
        ("GET", ((":status", "200"),), b"content-length: 0\r\n"),
    ],
    ids=["head", "204", "304", "empty"],
)
async def test_answers_without_a_body_leave_the_connection_at_the_next_head(
    method: str, fields: tuple[tuple[str, str], ...], expected: bytes
) -> None:
    def bare(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, *fields, end=True)

    async with h2_server(bare) as server, asking(server) as (client, _):
        answers = [await ask(client, request(method)) for _ in range(2)]

    for answer in answers:
        assert expected in answer
        assert answer.endswith(END)
        assert b"chunked" not in answer


async def test_interim_answers_are_passed_on_and_the_body_waits_for_its_100() -> None:
    def careful(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "103"), ("link", "</a>"))
            peer.send(event.stream_id, (":status", "100"))
        if isinstance(event, events.StreamEnded):
            peer.send(event.stream_id, (":status", "200"), data=peer.body(event.stream_id), end=True)

    async with h2_server(careful) as server, asking(server) as (client, _):
        first = await ask(client, request("PUT", "/", "Content-Length: 4", "Expect: 100-continue"), b" 100 Continue")
        answer = await ask(client, b"body", b"0\r\n\r\n")

    assert b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" in first
    assert answer.endswith(b"4\r\nbody\r\n0\r\n\r\n")


async def test_an_answer_that_comes_before_the_body_is_over_ends_the_connection() -> None:
    async with h2_server() as server, asking(server) as (client, _):
        answer = await ask(client, request("POST", "/", "Transfer-Encoding: chunked") + b"3\r\none\r\n", b"0\r\n\r\n")

        assert b"connection: close\r\n" in answer
        async with asyncio.timeout(30):
            while await client.more():
                pass


async def test_a_client_of_http_1_0_gets_the_body_until_the_end() -> None:
    async with h2_server() as server, asking(server) as (client, _):
        answer = await ask(client, request(version="1.0"), b"never")

    head, _, body = answer.partition(END)
    assert b"chunked" not in head
    assert (b"connection: close" in head, body) == (True, b"ok")


async def test_a_client_that_goes_away_resets_the_stream() -> None:
    async with h2_server(lambda peer, event: None) as server, asking(server) as (client, guest):
        client.write(request())
        await until(lambda: any(peer.fields(1) for peer in server.peers))
        client.abort()
        await until(lambda: any(peer.reset_code(1) is not None for peer in server.peers))
        await until(lambda: len(guest.records) == 1)

    assert [peer.reset_code(1) for peer in server.peers if peer.fields(1)] == [8]
    assert guest.records[0].reason == "the client went away"


async def test_a_stream_that_breaks_off_breaks_the_clients_connection_off() -> None:
    def half(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"), data=b"half")
            peer.reset(event.stream_id, 2)

    async with h2_server(half) as server, asking(server) as (client, guest):
        answer = await ask(client, request(), b"0\r\n\r\n")
        await until(lambda: len(guest.records) == 1)

    assert answer.endswith(b"4\r\nhalf\r\n") or answer == b""  # never the last chunk
    assert guest.records[0].reason == "the upstream broke off"


async def test_a_malformed_body_is_the_clients_fault() -> None:
    async with h2_server(lambda peer, event: None) as server, asking(server) as (client, _):
        answer = await ask(client, request("POST", "/", "Transfer-Encoding: chunked") + b"zz\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_upgrade_is_refused_with_the_reason() -> None:
    async with h2_server() as server, asking(server) as (client, _):
        answer = await ask(client, request("GET", "/", "Connection: Upgrade", "Upgrade: websocket"), b"\n")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"X-Moat-Error: http-version\r\n" in answer
    assert all(not peer.fields(1) for peer in server.peers)


async def test_a_request_that_a_leaving_server_did_not_look_at_is_sent_again() -> None:
    def leaves_once(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if not any(other.is_over for other in server.peers if other.fields(1)):
                peer.write(b"\0\0\x08\x07\0\0\0\0\0" + (0).to_bytes(4) + bytes(4))
                peer.is_over = True
            else:
                ok(peer, event)

    async with h2_server(leaves_once) as server, asking(server) as (client, _):
        answer = await ask(client, request(), b"ok")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_upstream_that_gives_no_more_room_is_a_504() -> None:
    async with h2_server(lambda peer, event: None) as server, asking(server, Limits(upload_idle_s=0.1)) as (client, _):
        server.acknowledges = False
        answer = await ask(client, request("POST", "/", "Content-Length: 3000000") + bytes(1_000_000), b"minutes sets")

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"upstream.upload_idle_minutes" in answer


async def test_an_answer_that_does_not_come_is_a_504() -> None:
    limits = Limits(first_byte_s=0.05)
    async with h2_server(lambda peer, event: None) as server, asking(server, limits) as (client, _):
        answer = await ask(client, request(), b"\n")

    assert answer.startswith(b"HTTP/1.1 504 ")
