"""Clients of HTTP/1.1 whose upstream speaks only HTTP/2: the client seen as a lane, so that H2Exchange serves it.

Exchange.run ─▶ OnlyHttp2 ─▶ H2Exchange(Http1Near(client)) ─▶ a lane of a link that other requests share
chunks and trailers ◀─▶ DATA and trailers · a client that goes ─▶ RST_STREAM · 1xx, HEAD, HTTP/1.0 as ever
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import Protocol

from hpack.struct import HeaderTuple

from moat.proxy.bodies import BodyReader, reader_for, writer_for
from moat.proxy.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Malformed, Request, render_response
from moat.proxy.refusal import malformed, unreachable
from moat.proxy.server.exchange import Exchange, Truncated
from moat.proxy.server.h2_exchange import CutShort, H2Exchange
from moat.proxy.server.h2_lane import LaneBroken
from moat.proxy.server.h2_upstream import Upstreams
from moat.proxy.server.stream import Stream, StreamBroken
from moat.proxy.server.versions import OnlyHttp2


async def over_either(exchange: Exchange, upstreams: Upstreams) -> bool:
    """Run an exchange, over HTTP/2 where upstream has nothing else. Raises what Exchange.run raises."""
    try:
        return await exchange.run()
    except OnlyHttp2 as refusal:
        if exchange.passage.upgrade:
            raise unreachable(f"{refusal.reason}, over which nothing is upgraded", refusal.kind) from None
    return await _over_http2(exchange, upstreams)


async def _over_http2(exchange: Exchange, upstreams: Upstreams) -> bool:
    passage = replace(exchange.passage, body=None)  # what is to be done to the body was done: hold has run
    near = Http1Near(exchange.client, exchange.request)
    shared = (upstreams, exchange.limits, exchange.captures)
    inner = H2Exchange(near, exchange.request, passage, exchange.trail, *shared, share=exchange.share)
    near.progress = inner
    exchange.is_upload_done = exchange.request.framing is NO_BODY
    try:
        await inner.run()
    except CutShort:
        raise Truncated from None
    except LaneBroken:
        raise StreamBroken("the client went away") from None
    finally:
        exchange.is_upload_done = near.body.is_done
    return near.keeps


class Progress(Protocol):
    """How far an exchange is."""

    is_upload_done: bool


class Http1Near:
    """An HTTP/1.1 client, as H2Exchange sees the lane of an HTTP/2 one.

    progress: of the exchange, set before it runs. keeps: whether the connection may carry another request.
    """

    def __init__(self, stream: Stream, request: Request) -> None:
        self.buffer = stream.buffer
        self.body: BodyReader = _Body(request.framing, stream)
        self.has_finished = False
        self.keeps = False
        self.progress: Progress | None = None
        self._stream = stream
        self._request = request
        self._writer = writer_for(NO_BODY)

    @property
    def has_ended(self) -> bool:
        """Whether all of the request has come."""
        return self.body.is_done

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what is sent."""
        return self._stream.is_full

    async def more(self) -> bool:
        """Wait for more of the request. Raises LaneBroken when there is none."""
        try:
            if await self._stream.more():
                return True
        except StreamBroken:
            pass
        raise LaneBroken(None)

    def head(self, fields: Iterable[HeaderTuple], *, is_over: bool = False) -> None:
        """Send a response head, interim ones too, where the client's version has them."""
        pairs = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in fields]
        status, headers = int(pairs[0][1]), pairs[1:]
        if status >= 200:
            self._final(status, headers, is_over=is_over)
        elif self._request.version == "1.1":
            self._stream.write(render_response(status, _phrase(status), headers))

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer's body. Raises LaneBroken."""
        self._stream.write(self._writer.encode(data))
        try:
            await self._stream.drain()
        except StreamBroken:
            raise LaneBroken(None) from None

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End the answer's body."""
        self.has_finished = True
        self._stream.write(self._writer.finish(trailers))

    def _final(self, status: int, headers: list[tuple[str, str]], *, is_over: bool) -> None:
        framing = self._framing(status, headers, is_over=is_over)
        if framing is CHUNKED:
            headers.append(("transfer-encoding", "chunked"))
        elif framing == _EMPTY:
            headers.append(("content-length", "0"))
        is_uploaded = self.progress is None or self.progress.is_upload_done
        self.keeps = self._request.keeps_alive and is_uploaded and framing is not UNTIL_CLOSE
        if not self.keeps:
            headers.append(("connection", "close"))
        self._writer = writer_for(framing)
        self.has_finished = is_over
        self._stream.write(render_response(status, _phrase(status), headers))

    def _framing(self, status: int, headers: list[tuple[str, str]], *, is_over: bool) -> Framing:
        """Return how the client gets the body: an end it can tell from a break, where its version has one."""
        has_length = any(name.lower() == "content-length" for name, _ in headers)
        if self._request.method == "HEAD" or status in (204, 304):
            return NO_BODY
        if has_length:
            return NO_BODY if is_over else _OF_LENGTH
        if is_over:
            return _EMPTY
        return CHUNKED if self._request.version == "1.1" else UNTIL_CLOSE


class _Body:
    """A request's body. What is malformed in it is a refusal: a lane has no such thing."""

    def __init__(self, framing: Framing, stream: Stream) -> None:
        self._stream = stream
        self._reader = reader_for(framing)
        self.is_done = self._reader.is_done
        self.may_end_here = False
        self.trailers: list[tuple[str, str]] = []

    @property
    def has_more(self) -> bool:
        return self._reader.has_more

    def take(self, buffer: bytearray) -> bytes:
        try:
            payload = self._reader.take(buffer)
        except Malformed as problem:
            raise malformed(str(problem)) from None
        self.is_done, self.trailers = self._reader.is_done, self._reader.trailers
        if self.is_done:
            self._stream.resume()  # nobody reads it till there is an answer, and its end must be seen
        return payload

    def end(self) -> bytes:
        return b""


_EMPTY = Framing("length", 0)
_OF_LENGTH = Framing("length", 1)  # which number is the header's and the far side's to keep


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
