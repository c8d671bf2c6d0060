"""Endpoints that answer themselves: a request is read whole, answered by its provider, and recorded like any other.

client ─ head, body, bounded ─▶ Question ─▶ a fixed Reply, or Asks ─▶ the daemon      over HTTP/1.1 or HTTP/2
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from moat.api.endpoints import MAX_QUESTION_BYTES, Question, Reply, Respond
from moat.api.http import Headers
from moat.proxy.admit import LiveRun
from moat.proxy.bodies import BodyReader, reader_for
from moat.proxy.endpoint import Asked, asked_of, authority_of, ingress_of
from moat.proxy.flow import Arrival, check_method, check_open
from moat.proxy.holds import Holds, Share
from moat.proxy.http1 import Malformed, Request, end_to_end, render_response
from moat.proxy.http2_heads import response_fields
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, malformed
from moat.proxy.server.asks import Asks
from moat.proxy.server.h2_lane import Lane
from moat.proxy.server.pool import Key
from moat.proxy.server.stream import Stream, within

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Responding:
    """One request at an endpoint that answers itself. body_idle_s: how long its client may pause."""

    asks: Asks
    run_id: str
    asked: Asked
    how: Respond
    request: Request
    trail: Trail
    body_idle_s: float
    holds: Holds = field(default_factory=Holds, repr=False)

    @property
    def key(self) -> Key:
        """Return whose credential is used here, and where, as the audit has it."""
        endpoint = self.asked.endpoint
        return Key(self.run_id, authority_of(endpoint.where), (endpoint.grant,) if endpoint.grant else ())

    async def over_http1(self, stream: Stream) -> bool:
        """Answer; return whether the connection goes on. Raises Refusal and StreamBroken."""
        request = self.request
        if request.version == "1.1" and "expect" in request.fields and not stream.buffer:
            stream.write(_CONTINUE)
        reply = await self._replied(reader_for(request.framing), stream.buffer, lambda: self._more(stream))
        headers = self._headers(reply)
        if not request.keeps_alive:
            headers.append(("Connection", "close"))
        head = render_response(reply.status, _phrase(reply.status), headers)
        stream.write(head + self._shown(reply))
        self._recorded(reply)
        if stream.buffer:
            await asyncio.sleep(0)  # as after a refusal
        return request.keeps_alive

    async def over_http2(self, lane: Lane) -> None:
        """Answer. Raises Refusal and LaneBroken."""
        if "expect" in self.request.fields and not lane.buffer and not lane.has_ended:
            lane.head(response_fields(100, ()))
        reply = await self._replied(lane.body, lane.buffer, lambda: self._more_of_lane(lane))
        body = self._shown(reply)
        lane.head(response_fields(reply.status, self._headers(reply)), is_over=not body)
        if body:
            await lane.send(body)
            lane.finish(())
        self._recorded(reply)

    async def _replied(self, reader: BodyReader, buffer: bytearray, more: Callable[[], Awaitable[bool]]) -> Reply:
        with Share(self.holds) as share:
            return await self._reply(await self._body(reader, buffer, more, share))

    async def _body(
        self, reader: BodyReader, buffer: bytearray, more: Callable[[], Awaitable[bool]], share: Share
    ) -> bytes:
        body = bytearray()
        try:
            while not reader.is_done:
                if piece := reader.take(buffer):
                    body += piece
                elif not reader.is_done and not reader.has_more and not await more():
                    raise malformed("the request's body broke off")
                if len(body) > MAX_QUESTION_BYTES:
                    raise Refusal(413, f"this endpoint takes {MAX_QUESTION_BYTES} bytes at most", kind="endpoint")
                share.at_least(len(body))
                if reader.has_more:
                    await asyncio.sleep(0)
        except Malformed as problem:
            raise malformed(str(problem)) from None
        except TimeoutError:
            raise Refusal(408, "the request's body did not come", kind="timeout") from None
        self.trail.request_bytes = len(body)
        return bytes(body)

    async def _more(self, stream: Stream) -> bool:
        return await stream.more(within(self.body_idle_s))

    async def _more_of_lane(self, lane: Lane) -> bool:
        async with asyncio.timeout(self.body_idle_s):
            return await lane.more()

    async def _reply(self, body: bytes) -> Reply:
        """Return the endpoint's answer: the fixed one, or what its provider says now."""
        if self.how.reply is not None:
            return self.how.reply
        grant = self.asked.endpoint.grant
        self.trail.grants = (grant,)
        headers = Headers(tuple(end_to_end(self.request.headers, self.request.fields, "host", "expect")))
        question = Question(self.run_id, self.how.name, self.request.method, self.asked.target, headers, body)
        return await self.asks.answer(grant, question)

    def _headers(self, reply: Reply) -> list[tuple[str, str]]:
        headers = list(reply.headers)
        if reply.status not in _WITHOUT_BODY:
            headers.append(("Content-Length", str(len(reply.body))))
        return headers

    def _shown(self, reply: Reply) -> bytes:
        return b"" if self.request.method == "HEAD" or reply.status in _WITHOUT_BODY else reply.body

    def _recorded(self, reply: Reply) -> None:
        self.trail.answered(reply.status)
        self.trail.response_bytes = len(self._shown(reply))
        self.trail.forwarded()


def responding(
    run: LiveRun, arrival: Arrival, request: Request, trail: Trail, asks: Asks, body_idle_s: float
) -> Responding | None:
    """Return what answers a request at an endpoint that does so itself; None for any other. Raises Refusal."""
    if not run.context.endpoints:
        return None
    asked = asked_of(run, arrival, request)
    if asked is None or not isinstance(how := asked.endpoint.how, Respond):
        return None
    trail.via = ingress_of(asked.endpoint.where)
    trail.introduce(request.version, request.fields, run.spent.unsaid)
    trail.aim(authority_of(asked.endpoint.where))
    trail.ask(request.method, request.target, run.spent.unsaid)
    check_open(run)
    check_method(request)
    return Responding(asks, run.context.run_id, asked, how, request, trail, body_idle_s, run.holds)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
