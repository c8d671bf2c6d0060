"""Holds a request's body until it is whole, for the rules that must see all of it before any of it leaves.

    client ─ body ─▶ held, at most the rules' limit ─▶ placeholders replaced ─▶ back in front of the client's stream

What is then there is a request like any other, with another length, for the exchange to send. A body that is too large
is put back as it came: nothing of it is replaced.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from moat.proxy.bodies import BodyReader, ChunkedWriter, reader_for
from moat.proxy.flow import Passage
from moat.proxy.holds import Share
from moat.proxy.http1 import Framing, Malformed, Request
from moat.proxy.refusal import Refusal, malformed
from moat.proxy.server.stream import Stream
from moat.proxy.substitute import BodyTask

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def share_of(passage: Passage) -> Share:
    """Return what the body of a request may have of its run's room."""
    return Share() if passage.body is None else Share(passage.body.holds)


async def hold(
    client: Stream, request: Request, passage: Passage, idle_s: float, share: Share
) -> tuple[Request, Passage]:
    """Return request and passage with the body replaced. Raises Refusal.

    idle_s: how long the client may pause. share: of the run's room, for as long as the body is here.
    """
    task = passage.body
    if task is None:
        return request, passage
    framing = request.framing
    if task.limit_bytes == 0 or (framing.kind == "length" and framing.length > task.limit_bytes):
        task.give_up()
        return request, passage
    passage = _without_expect(client, request, passage)
    held = await _held(client, request, task, idle_s, share)
    if held is None:
        task.give_up()
        return request, passage
    body, trailers = held
    applied = task.apply(body)
    body = applied.body
    if framing.kind == "chunked":
        writer = ChunkedWriter()
        client.buffer[:0] = (writer.encode(body) if body else b"") + writer.finish(trailers)
    else:
        client.buffer[:0] = body
        request = replace(request, framing=Framing("length", len(body)))
    return request, passage.with_body(applied)


async def _held(
    client: Stream, request: Request, task: BodyTask, idle_s: float, share: Share
) -> tuple[bytes, list[tuple[str, str]]] | None:
    """Return the whole body and its trailers; None when it is too large, and then the stream is as it was.

    Kept is what came, which may have to be put back; the body is read from it once more when it is whole.
    """
    reader, raw, count = reader_for(request.framing), bytearray(), 0
    while True:
        before = bytes(client.buffer)
        try:
            count += len(reader.take(client.buffer))
        except Malformed as problem:
            raise malformed(str(problem)) from None
        raw += memoryview(before)[: len(before) - len(client.buffer)]
        if count > task.limit_bytes:
            client.buffer[:0] = raw
            return None
        share.at_least(len(raw))
        if reader.is_done:
            return await _whole(raw, reader_for(request.framing))
        if reader.has_more:
            await asyncio.sleep(0)
        elif not await _more(client, idle_s):
            raise malformed("the request's body broke off")


async def _whole(raw: bytearray, reader: BodyReader) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the body that is all in raw, and its trailers."""
    body = bytearray()
    while not reader.is_done:
        body += reader.take(raw)
        if reader.has_more:
            await asyncio.sleep(0)
    return bytes(body), reader.trailers


async def _more(client: Stream, idle_s: float) -> bool:
    try:
        async with asyncio.timeout(idle_s):
            return await client.more()
    except TimeoutError:
        raise Refusal(408, "the request's body did not come", kind="timeout") from None


def _without_expect(client: Stream, request: Request, passage: Passage) -> Passage:
    """Ask for the body ourselves: upstream hears of the request only when it is whole (RFC 9110 §10.1.1)."""
    if "expect" not in request.fields:
        return passage
    if request.version == "1.1" and not client.buffer:
        client.write(_CONTINUE)
    return replace(passage, head=passage.head.with_headers(passage.head.headers.without("expect")))
