"""The upstream's side of an HTTP/2 client's exchange: the same few steps, whichever version the upstream speaks.

    begin ─▶ send… finish (task)      head ─▶ head… ─▶ reader, more… ─▶ keep      leave, always

Unsent: the request certainly was not acted upon, and may be sent again on another connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from moat.proxy.bodies import BodyReader, answer_reader, writer_for
from moat.proxy.flow import Passage
from moat.proxy.http1 import (
    NO_BODY,
    Framing,
    Malformed,
    Request,
    Response,
    read_response,
    take_head,
)
from moat.proxy.http2 import CANCEL, HTTP_1_1_REQUIRED, NO_ERROR
from moat.proxy.http2_heads import read_response as read_h2_response
from moat.proxy.http2_heads import request_fields
from moat.proxy.refusal import malformed
from moat.proxy.server.chain import wrong_credentials
from moat.proxy.server.h2_lane import Lane, LaneBroken
from moat.proxy.server.h2_link import Link
from moat.proxy.server.pool import Lease, Pool
from moat.proxy.server.stream import StreamBroken
from moat.proxy.telling import head_up

_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))  # RFC 9110 §9.2.2, TRACE aside


class Unsent(Exception):
    """The upstream did nothing with the request. is_http1_wanted: it will not over HTTP/2."""

    def __init__(self, *, is_http1_wanted: bool = False) -> None:
        super().__init__("the request can be sent again")
        self.is_http1_wanted = is_http1_wanted


class Far(Protocol):
    """One request's upstream. buffer: what came and was not taken."""

    buffer: bytearray

    def begin(self, request: Request, passage: Passage) -> None:
        """Send the request's head.

        Raises StreamBroken, LaneBroken, or Malformed when the connection takes no more; Refusal for what it cannot be.
        """
        ...

    async def send(self, payload: bytes) -> None:
        """Send a piece of its body, as the upstream takes it. Raises StreamBroken or LaneBroken."""
        ...

    def untaken(self) -> object:
        """Return what changes when the upstream takes some of what is sent."""
        ...

    def give_up(self) -> None:
        """Break it off while it takes nothing: whoever waits for it gets StreamBroken or LaneBroken."""
        ...

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End its body. Raises LaneBroken."""
        ...

    async def head(self) -> Response:
        """Return the next response head, interim ones too.

        Raises StreamBroken or LaneBroken when there is none, Malformed, and Unsent.
        """
        ...

    def reader(self, response: Response) -> BodyReader:
        """Return the reader of the body after a final head. Raises Malformed."""
        ...

    async def more(self) -> bool:
        """Wait for more in buffer; False at the end. Raises StreamBroken or LaneBroken."""
        ...

    def keep(self, response: Response) -> None:
        """Say that request and answer are whole."""
        ...

    def leave(self) -> None:
        """Have nothing more to do with it; aborts what was not kept."""
        ...


class OverHttp1:
    """An upstream that speaks HTTP/1.1: a connection of the pool."""

    def __init__(self, lease: Lease, pool: Pool) -> None:
        self.buffer = lease.stream.buffer
        self._lease = lease
        self._pool = pool
        self._request: Request | None = None
        self._writer = writer_for(NO_BODY)

    def begin(self, request: Request, passage: Passage) -> None:
        """Send the request's head. Raises Refusal for one that HTTP/1.1 cannot carry as it was meant."""
        if any("_" in name for name in request.fields):  # gRPC's; what speaks HTTP/1.1 may have a CGI behind it
            raise malformed("a name with `_` is passed on over HTTP/2 only, and this service speaks HTTP/1.1")
        self._request = request
        self._writer = writer_for(request.framing)
        self._lease.stream.write(head_up(passage, request, self._lease.proxy))

    async def send(self, payload: bytes) -> None:
        """Send a piece of its body, as the upstream takes it. Raises StreamBroken."""
        self._lease.stream.write(self._writer.encode(payload))
        await self._lease.stream.drain()

    def untaken(self) -> object:
        """Return how much of what was sent the upstream has not taken."""
        return self._lease.stream.untaken()

    def give_up(self) -> None:
        """Close the connection."""
        self._lease.stream.abort()

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End its body."""
        self._lease.stream.write(self._writer.finish(trailers))

    async def head(self) -> Response:
        """Return the next response head. Raises StreamBroken, Malformed, Unsent, and Refusal for a proxy's 407."""
        request = self._asked()
        try:
            while (text := take_head(self.buffer)) is None:
                if not await self._lease.stream.more():
                    raise StreamBroken("closed")
        except StreamBroken:
            if self._lease.is_reused and not self.buffer and _may_repeat(request):
                raise Unsent from None
            raise
        response = read_response(text, request.method)
        if response.head.status == 407 and self._lease.proxy is not None:
            raise wrong_credentials(self._lease.proxy)
        return response

    def reader(self, response: Response) -> BodyReader:
        """Return the reader of the body after a final head."""
        return answer_reader(response.framing)

    async def more(self) -> bool:
        """Wait for more in buffer; False at the end. Raises StreamBroken."""
        return await self._lease.stream.more()

    def keep(self, response: Response) -> None:
        """Give the connection back, if it may carry another request."""
        if response.keeps_alive:
            self._pool.give_back(self._lease)

    def leave(self) -> None:
        """Abort what was not given back."""
        if not self._lease.is_kept:
            self._lease.stream.abort()

    def _asked(self) -> Request:
        if self._request is None:
            raise StreamBroken("nothing was asked")
        return self._request


class OverHttp2:
    """An upstream that speaks HTTP/2: one lane of a connection that others share. is_reused: it has served before."""

    def __init__(self, link: Link, *, is_reused: bool) -> None:
        self.buffer = bytearray()
        self._link = link
        self._is_reused = is_reused
        self._lane: Lane | None = None
        self._request: Request | None = None

    def begin(self, request: Request, passage: Passage) -> None:
        """Send the request's head."""
        fields = request_fields(passage.head, passage.authority, request.framing, request.headers.items)
        lane = self._link.open(fields, is_over=request.framing is NO_BODY)
        self._request, self._lane, self.buffer = request, lane, lane.buffer

    async def send(self, payload: bytes) -> None:
        """Send a piece of its body, as the upstream takes it. Raises LaneBroken."""
        await self._begun().send(payload)

    def untaken(self) -> object:
        """Return what changes when the upstream takes some of this lane, or of what the connection holds before it."""
        return self._begun().untaken()

    def give_up(self) -> None:
        """Reset the stream; where it is the connection that does not take it, nothing else is sent there."""
        if self._link.stream.is_full:
            self._link.is_leaving = True
        self.leave()

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End its body. Raises LaneBroken."""
        self._begun().finish(trailers)

    async def head(self) -> Response:
        """Return the next response head. Raises LaneBroken, Malformed, and Unsent."""
        lane, request = self._begun(), self._request
        method = request.method if request is not None else ""
        try:
            while not lane.heads:
                if not await lane.more():
                    raise Malformed("an HTTP/2 stream that ends without an answer")
        except LaneBroken as broken:
            if broken.code == HTTP_1_1_REQUIRED:
                raise Unsent(is_http1_wanted=True) from None
            is_stale = broken.code is None and self._is_reused and request is not None and _may_repeat(request)
            if broken.is_unseen or is_stale:
                raise Unsent from None
            raise
        head = lane.heads.popleft()
        return read_h2_response(head.pairs, method, is_over=head.is_over)

    def reader(self, response: Response) -> BodyReader:
        """Return the reader of the body after a final head. Raises Malformed when it is too long already."""
        lane = self._begun()
        if response.framing.kind != "chunked":
            lane.expect(response.framing.length)
        return lane.body

    async def more(self) -> bool:
        """Wait for more in buffer; False at the end. Raises LaneBroken."""
        return await self._begun().more()

    def keep(self, response: Response) -> None:
        """Do nothing: the connection stays anyway."""

    def leave(self) -> None:
        """Reset the stream where it is not over."""
        if self._lane is not None:
            self._lane.leave(NO_ERROR if self._lane.has_ended else CANCEL)

    def _begun(self) -> Lane:
        if self._lane is None:
            raise LaneBroken(None)
        return self._lane


def _may_repeat(request: Request) -> bool:
    return request.framing in (NO_BODY, Framing("length", 0)) and request.method in _IDEMPOTENT
