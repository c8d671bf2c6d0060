"""Requests at endpoints that answer themselves, over both versions of HTTP; the daemon is a function here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from moat.api.endpoints import MAX_QUESTION_BYTES, Endpoint, ProxyPath, Question, Reply, Respond, UnixPath
from moat.proxy.limits import Limits
from moat.proxy.messages import Answered, Ask, AskSignature
from moat.proxy.server.guesses import Challenge, Guesses
from moat.proxy.server.stream import PlainStream
from support.worker import RUN, a_run

from core.proxy.server.h2_peers import Client
from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import plain_pair, turns_during, until

ASKED = Endpoint(ProxyPath("/_moat/aws/"), Respond("keys"), "aws")
FIXED = Endpoint(ProxyPath("/_moat/fixed/"), Respond("f", Reply(404, (("X-A", "b"),), b"nothing")), "aws")
EMPTY = Endpoint(ProxyPath("/_moat/empty/"), Respond("e", Reply(204)), "aws")
SOCKET = Endpoint(UnixPath("/run/aws/keys.sock"), Respond("keys"), "aws")

Say = Callable[[Question], Reply | None]


@contextlib.asynccontextmanager
async def asking(
    say: Say, limits: Limits | None = None, *, is_open: bool = True
) -> AsyncIterator[tuple[Guest, list[Ask]]]:
    run, asks = replace(a_run(is_open=is_open), endpoints=(ASKED, FIXED, EMPTY, SOCKET)), list[Ask]()
    async with a_house(run, limits=limits) as guest:

        def ask(message: Ask | AskSignature) -> None:
            assert isinstance(message, Ask)
            asks.append(message)
            answer = Answered(message.id, say(message.question))
            asyncio.get_running_loop().call_soon(guest.house.answered, answer)

        guest.house._asks._send = ask
        yield guest, asks


def told(question: Question) -> Reply:
    return Reply(200, (("Content-Type", "text/plain"),), f"{question.method} {question.target}".encode())


async def exchanged(guest: Guest, *requests: bytes, until_bytes: bytes = b"\r\n\r\n") -> list[bytes]:
    client = await guest.connect(guest.listen(RUN, "proxy"))
    return [await guest.ask(client, request, until_bytes) for request in requests]


def request(target: str, method: str = "GET", *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/{version}", "Host: 127.0.0.1:19080", *lines, "", "")).encode()


async def test_a_question_has_what_was_asked_and_the_answer_comes_whole() -> None:
    async with asking(told) as (guest, asks):
        body = request("/_moat/aws/keys?role=a", "POST", "Content-Length: 4", "Connection: x-hop", "X-Hop: 1", "X-A: b")
        answers = await exchanged(guest, body + b"body", request("/_moat/aws/"), until_bytes=b"/")
        await until(lambda: len(guest.records) == 2)

    assert answers[0].startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\nPOST /keys")
    assert answers[1].endswith(b"GET /")
    question = asks[0].question
    assert (asks[0].grant, question.name, question.run_id) == ("aws", "keys", RUN)
    assert (question.method, question.target, question.body) == ("POST", "/keys?role=a", b"body")
    assert question.headers.get("x-a") == "b"
    assert not {"host", "x-hop", "connection"} & {name.lower() for name, _ in question.headers}
    record = guest.records[0]
    assert (record.via, record.status, record.path, record.grants) == ("endpoint", 200, "/_moat/aws/keys", ("aws",))
    assert (record.request_bytes, record.response_bytes) == (4, 17)


async def test_a_fixed_answer_asks_nobody() -> None:
    async with asking(told) as (guest, asks):
        answers = await exchanged(guest, request("/_moat/fixed/"), request("/_moat/fixed/", "HEAD"))
        (empty,) = await exchanged(guest, request("/_moat/empty/"))
        await until(lambda: len(guest.records) == 3)

    assert answers[0].endswith(b"\r\nX-A: b\r\nContent-Length: 7\r\n\r\nnothing")
    assert answers[1].endswith(b"\r\nContent-Length: 7\r\n\r\n")
    assert empty == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert asks == []
    assert guest.records[0].grants == ()


async def test_others_have_their_turns_between_questions_that_came_at_once() -> None:
    async with asking(told) as (guest, _):
        client = await guest.connect(guest.listen(RUN, "proxy"))
        sent = request("/_moat/empty/") * 500 + request("/_moat/fixed/")
        answer, turns = await turns_during(guest.ask(client, sent, b"nothing"))

    assert answer.count(b"HTTP/1.1 204 ") == 500
    assert turns >= 500


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (
            request("/_moat/aws/", "POST", f"Content-Length: {MAX_QUESTION_BYTES + 1}") + bytes(MAX_QUESTION_BYTES + 1),
            413,
        ),
        (request("/_moat/aws/", "POST", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
        (request("/_moat/aws/", "POST", "Content-Length: 9") + b"part", 408),
        (request("/_moat/aws/", "TRACE"), 405),
        (request("/_moat/aws/"), 502),
    ],
    ids=["too long", "malformed", "never whole", "trace", "no answer"],
)
async def test_what_cannot_be_asked_or_answered_is_refused(sent: bytes, status: int) -> None:
    async with asking(lambda _: None, Limits(body_idle_s=0.05)) as (guest, asks):
        (answer,) = await exchanged(guest, sent)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert len(asks) == (1 if status == 502 else 0)


async def test_a_closed_run_is_answered_nothing() -> None:
    async with asking(told, is_open=False) as (guest, asks):
        answers = await exchanged(guest, request("/_moat/fixed/"))

    assert answers[0].startswith(b"HTTP/1.1 503 ")
    assert asks == []


async def test_a_client_that_waits_is_told_to_send_its_body() -> None:
    async with asking(told) as (guest, _):
        first = request("/_moat/aws/", "PUT", "Content-Length: 4", "Expect: 100-continue")
        answers = await exchanged(guest, first, b"body", until_bytes=b"\r\n\r\n")

    assert answers[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answers[1].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_of_http_1_0_is_told_that_the_connection_ends() -> None:
    async with asking(told) as (guest, _):
        answers = await exchanged(guest, request("/_moat/aws/", version="1.0"))

    assert b"\r\nConnection: close\r\n" in answers[0]


async def over_http2(guest: Guest) -> tuple[Client, PlainStream]:
    """Return a client that knows that HTTP/2 is spoken at a socket."""
    from moat.proxy.server.connection import Connection
    from moat.proxy.server.endpoints import serve_endpoint

    client, door = await plain_pair()
    services = guest.house._services
    assert services is not None
    connection = Connection(services, Challenge(Guesses(lambda _: None)), RUN)
    assert isinstance(SOCKET.where, UnixPath)
    guest.house._group.create_task(serve_endpoint(connection, door, SOCKET.where))
    peer = Client(H2Connection(H2Configuration(client_side=True, header_encoding=None)), client.write)
    peer.stream = client  # type: ignore[assignment] # a plain one does here
    peer.h2.initiate_connection()
    return peer, client


def has_room(peer: Client, stream: int) -> bool:
    return peer.h2.local_flow_control_window(stream) > 16_384


async def test_it_is_the_same_over_http_2() -> None:
    async with asking(told) as (guest, asks):
        peer, stream = await over_http2(guest)
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/keys")]
        for number, body in ((1, b"body"), (3, bytes(MAX_QUESTION_BYTES + 1))):
            peer.h2.send_headers(number, head)
            for start in range(0, len(body), 16_384):
                piece = body[start : start + 16_384]
                await peer.until(partial(has_room, peer, number))
                peer.h2.send_data(number, piece, end_stream=start + 16_384 >= len(body))
                peer.flush()
        first, second = await peer.answered(1), await peer.answered(3)
        await until(lambda: len(guest.records) == 2)
        stream.abort()

    assert (first[":status"], peer.body(1)) == ("200", b"POST /keys")
    assert second[":status"] == "413"
    assert [ask.question.body for ask in asks] == [b"body"]
