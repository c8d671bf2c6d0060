from __future__ import annotations

import asyncio

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import Match, ReplaceToken
from moat.proxy.bodies import MAX_CHUNKS, reader_for
from moat.proxy.flow import Passage
from moat.proxy.holds import Share
from moat.proxy.http1 import Request, read_request
from moat.proxy.refusal import Refusal
from moat.proxy.server.hold import hold
from moat.proxy.substitute import substitute

from core.proxy.server.pairs import plain_pair, turns_during, until

API = Authority("https", "api.example.com", 443)
HERE = "moat-placeholder"
SECRET = "s3cr3t"


def a_post(*lines: str) -> Request:
    return read_request("\r\n".join(("POST / HTTP/1.1", "Host: api.example.com", *lines)))


def a_passage(*, limit: int = 100, require: bool = False, kind: str = "application/json") -> Passage:
    rule = ReplaceToken(Match("api.example.com"), HERE, SECRET, ("body",), limit, require, "g")
    head = RequestHead("POST", API, "/", Headers((("Content-Type", kind), ("Expect", "100-continue"))))
    return Passage(API, head, body=substitute([rule], head, has_body=True).body)


def body_of(request: Request, buffer: bytearray) -> bytes:
    reader = reader_for(request.framing)
    body = reader.take(buffer)
    assert reader.is_done
    return body


async def test_a_body_of_known_length_gets_its_new_one_and_what_follows_stays() -> None:
    client, stream = await plain_pair()
    client.write(b'{"k": "' + HERE[:5].encode())
    request = a_post("Content-Length: 25")
    await stream.more()
    client.write(HERE[5:].encode() + b'"}GET /next')
    held, passage = await hold(stream, request, a_passage(), 5, Share())

    assert held.framing.length == 15
    assert body_of(held, stream.buffer) == b'{"k": "s3cr3t"}'
    assert bytes(stream.buffer) == b"GET /next"
    assert passage.grants == ("g",)
    client.abort()
    stream.abort()


async def test_a_chunked_body_stays_chunked_with_its_trailers() -> None:
    client, stream = await plain_pair()
    client.write(b"8\r\n" + HERE[:8].encode() + b"\r\n8\r\n" + HERE[8:].encode() + b"\r\n0\r\nX-Sum: 1\r\n\r\nnext")
    held, _ = await hold(stream, a_post("Transfer-Encoding: chunked"), a_passage(), 5, Share())

    assert bytes(stream.buffer) == b"6\r\ns3cr3t\r\n0\r\nX-Sum: 1\r\n\r\nnext"
    assert held.framing.kind == "chunked"
    client.abort()
    stream.abort()


async def test_a_body_that_turns_out_too_large_goes_out_as_it_came() -> None:
    client, stream = await plain_pair()
    raw = b"10\r\n" + HERE.encode() + b"\r\n60\r\n" + b"x" * 96
    client.write(raw)
    held, passage = await hold(stream, a_post("Transfer-Encoding: chunked"), a_passage(), 5, Share())

    assert bytes(stream.buffer) == raw
    assert (held.framing.kind, passage.grants) == ("chunked", ())
    client.abort()
    stream.abort()


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_body_that_must_be_searched_and_cannot_be_is_refused_unread(kind: str) -> None:
    client, stream = await plain_pair()
    with pytest.raises(Refusal) as refused:
        await hold(stream, a_post("Content-Length: 101"), a_passage(require=True, kind=kind), 5, Share())

    assert refused.value.status == (413 if kind == "application/json" else 415)
    client.abort()
    stream.abort()


async def test_a_client_that_waits_to_be_asked_for_the_body_is_asked_by_us() -> None:
    client, stream = await plain_pair()
    request = a_post("Content-Length: 2", "Expect: 100-continue")

    async def answer() -> None:
        await until(lambda: bytes(client.buffer).endswith(b"\r\n\r\n"))
        client.write(b"{}")

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        _, passage = await hold(stream, request, a_passage(), 5, Share())

    assert bytes(client.buffer) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert "Expect" not in passage.head.headers
    client.abort()
    stream.abort()


async def test_a_body_that_breaks_off_or_is_malformed_is_refused() -> None:
    client, stream = await plain_pair()
    client.write(b"zz\r\n")
    with pytest.raises(Refusal) as malformed:
        await hold(stream, a_post("Transfer-Encoding: chunked"), a_passage(), 5, Share())
    client.close()
    with pytest.raises(Refusal) as short:
        await hold(stream, a_post("Content-Length: 50"), a_passage(), 5, Share())

    assert (malformed.value.status, short.value.status) == (400, 400)
    stream.abort()


async def test_a_request_without_a_task_is_untouched() -> None:
    client, stream = await plain_pair()
    request, passage = a_post("Content-Length: 5"), Passage(API, RequestHead("POST", API, "/"))

    assert await hold(stream, request, passage, 5, Share()) == (request, passage)
    client.abort()
    stream.abort()


async def test_others_have_their_turns_while_very_many_small_chunks_are_held() -> None:
    client, stream = await plain_pair()
    stream.buffer += b"1\r\nx\r\n" * (40 * MAX_CHUNKS) + b"0\r\nX-Sum: 1\r\n\r\nnext"
    request, passage = a_post("Transfer-Encoding: chunked"), a_passage(limit=100_000)

    _, turns = await turns_during(hold(stream, request, passage, 5, Share()))

    client.abort()
    stream.abort()
    assert turns >= 80  # it is read twice
    assert bytes(stream.buffer) == b"2800\r\n" + b"x" * 0x2800 + b"\r\n0\r\nX-Sum: 1\r\n\r\nnext"
