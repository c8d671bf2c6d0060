"""One judged request on its way: head up, body up and answer down at once, everything as it comes, nothing collected.

client ═ head ═▶ upstream          a stale pooled connection is replaced once, for what can be sent twice
client ─ body ─▶ upstream  (task)  an answer may come before the body is over; the connection then ends with it
client ◀═ 1xx, head, body ═ upstream           101 turns both into a tunnel
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from moat.net.route import ProxyRoute
from moat.proxy import telling
from moat.proxy.bodies import BodyReader, BodyWriter, answer_reader, reader_for, writer_for
from moat.proxy.flow import Passage
from moat.proxy.holds import Share
from moat.proxy.http1 import (
    NO_BODY,
    UNTIL_CLOSE,
    Framing,
    Malformed,
    Request,
    Response,
    read_response,
    take_head,
)
from moat.proxy.limits import Limits
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, late, malformed, silent, stalled, unreachable
from moat.proxy.repeats import Repeats
from moat.proxy.server.captures import Captures, Known
from moat.proxy.server.chain import wrong_credentials
from moat.proxy.server.pool import Key, Lease, Pool
from moat.proxy.server.pump import Pump
from moat.proxy.server.stall import Stall
from moat.proxy.server.stream import Stream, StreamBroken, within
from moat.proxy.server.tunnel import join
from moat.proxy.telling import Told
from moat.proxy.upgrade import check_switched
from moat.proxy.usage import metered
from moat.proxy.websocket import is_websocket
from moat.proxy.whole import WholeTask

MAX_INTERIM = 16  # 1xx answers before the real one; more is a flood
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))  # RFC 9110 §9.2.2, TRACE aside


class Truncated(Exception):
    """The answer broke off after its head was sent: the client's connection must break off too."""


@dataclass(slots=True)
class Exchange:
    """One request between a client's stream and a connection of the pool.

    is_upload_done: whether the request's body was read to its end, so that the client's stream stands at the next head.
    is_tunnel: it was upgraded, and goes on till both sides end. begun: over which its head was sent already, if it was.
    share: what the request's body has of the run's room, if it was held. asked_at: when the last of its body was sent.
    """

    client: Stream
    request: Request
    passage: Passage
    trail: Trail
    pool: Pool
    limits: Limits = field(default_factory=Limits)
    repeats: Repeats = field(default_factory=Repeats)
    captures: Captures = field(default_factory=Captures)
    is_upload_done: bool = True
    is_tunnel: bool = False
    begun: Lease | None = None
    share: Share = field(default_factory=Share)
    asked_at: float = 0.0
    _share_down: Share = field(default_factory=Share)
    _upload_problem: Refusal | None = None

    async def run(self) -> bool:
        """Forward the request and its answer; return whether the client's connection may carry another.

        Raises Refusal before an answer was begun, Truncated after.
        """
        self.passage.tell(self.trail)
        task = self.passage.whole
        if task is not None:
            self._share_down = Share(task.holds)
        if task is None or task.capture is None:
            return await self._sent()
        return await self.captures.apart(self._captured(task))

    async def _captured(self, task: WholeTask) -> bool:
        with self.share, self._share_down as share:  # the client may have left them by then
            share.at_least(task.reserved_bytes)
            async with self.captures.turn(task) as known:
                return await self._sent() if known is None else await self._again(known)

    async def _sent(self) -> bool:
        key = Key(self.trail.run_id, self.passage.authority, self.passage.grants, self.passage.upstream)
        lease, step = self.begun, self._answer
        if lease is None:
            lease, step = await self.pool.lease(key), self._on
        try:
            return await step(lease)
        except _Stale:
            lease.stream.abort()
            lease = await self.pool.lease(key, fresh=True)
            return await self._on(lease)
        finally:
            self._leave(lease)

    async def _on(self, lease: Lease) -> bool:
        lease.stream.write(self._head(lease.proxy))
        if self.request.framing in (NO_BODY, Framing("length", 0)):
            return await self._answer(lease)
        self.is_upload_done = False
        outcome: bool | Refusal | Truncated
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(self._upload(lease.stream))
            try:
                outcome = await self._answer(lease)
            except (Refusal, Truncated) as problem:  # kept out of the group, which would wrap it
                outcome = problem
            upload.cancel()
        if isinstance(outcome, bool):
            return outcome
        raise self._upload_problem if self._upload_problem and isinstance(outcome, Refusal) else outcome

    def _head(self, proxy: ProxyRoute | None) -> bytes:
        parts = (self.passage, self.request, proxy)
        return self.repeats.asked.made_of(*parts) or self.repeats.asked.keep(telling.head_up(*parts), *parts)

    async def _upload(self, upstream: Stream) -> None:
        """Send the client's body; a problem is remembered, and ends the wait for an answer."""
        reader, writer = reader_for(self.request.framing), writer_for(self.request.framing)
        stall = Stall(self.limits.upload_idle_s, partial(self._moved, upstream), partial(self._give_up, upstream))
        try:
            with stall:
                while not reader.is_done:
                    payload = reader.take(self.client.buffer)
                    if payload:
                        self.trail.sent(payload)
                        upstream.write(writer.encode(payload))
                        if not reader.is_done:
                            stall.is_waiting = True
                            await upstream.drain()
                            stall.is_waiting = False
                            self.share.give_back()  # what was held has left, all of it at once
                    if reader.has_more or not (payload or reader.is_done):
                        await self._more_body(reader)
            upstream.write(writer.finish(self.passage.trailers(reader.trailers)))
            self.is_upload_done, self.asked_at = True, within(0)
            self.client.resume()  # nobody reads it till there is an answer, and its end must be seen
            await upstream.drain()
            self.share.give_back()
        except StreamBroken:
            return  # the upstream stopped reading: its answer may still be on the way
        except Refusal as problem:
            self._upload_problem = problem
            upstream.abort()
        except Malformed as problem:
            self._upload_problem = malformed(str(problem))
            upstream.abort()

    def _moved(self, upstream: Stream) -> object:
        """Return what changes when the upstream takes or says something; None while it waits for the client."""
        trail = self.trail
        return None if self.client.is_full else (upstream.untaken(), trail.request_bytes, trail.response_bytes)

    def _give_up(self, upstream: Stream) -> None:
        self._upload_problem = stalled(self.passage.authority, self.limits.upload_idle_s)
        upstream.abort()

    async def _more_body(self, reader: BodyReader) -> None:
        if reader.has_more:
            return await asyncio.sleep(0)
        try:
            if await self.client.more(within(self.limits.body_idle_s)):
                return
        except TimeoutError:
            if self.trail.status:  # an answer has begun: it is not cut for a client that only listens
                return
            raise Refusal(408, "the request's body did not come", kind="timeout") from None
        raise malformed("the request's body broke off")

    async def _answer(self, lease: Lease) -> bool:
        response = await self._response(lease)
        self.trail.answered(response.head.status)
        if response.head.status == 101:
            return await self._tunnel(lease, response)
        reader, task = answer_reader(response.framing), self.passage.whole
        with self._share_down as share:
            if task is not None:
                settled = self.captures.settle(task, self.trail.run_id, response, reader, lease.stream, share)
                response, reader = await settled
            keeps = await self._down(response, reader, lease.stream)
        if response.keeps_alive and self.is_upload_done:
            self.pool.give_back(lease)
        return keeps

    async def _again(self, known: Known) -> bool:
        """Answer as before: what the request would spend is spent. Its body was held, and is whole."""
        reader = reader_for(self.request.framing)
        reader.take(self.client.buffer)
        self.is_upload_done = reader.is_done
        return await self._down(known.response, known.reader(), self.client)

    async def _down(self, response: Response, reader: BodyReader, source: Stream) -> bool:
        """Pass an answer on; return whether the client's connection may carry another request."""
        self.trail.answered(response.head.status)
        may_keep = self.request.keeps_alive and self.is_upload_done
        if self.trail.sample is not None:
            self.trail.sample.answer(response.head.headers.items, response.fields)
        told, reader = self._told(response, reader, may_keep=may_keep)
        reader = metered(self.passage.usage, response, reader, self.trail)
        await self._body_down(told.head, source, reader, writer_for(told.framing))
        self.trail.forwarded()
        return may_keep and told.framing is not UNTIL_CLOSE

    def _told(self, response: Response, reader: BodyReader, *, may_keep: bool) -> tuple[Told, BodyReader]:
        """Return how the client is told of the answer, and a reader of its body. Raises Refusal."""
        self.trail.scrubs = answering = self.passage.answering and self.passage.answering.begun()
        parts = (response, answering and answering.scrub, self.request.version, may_keep)
        known = self.repeats.told.made_of(*parts)
        if known is not None:
            return known, reader if answering is None or response.framing is NO_BODY else answering.reader(reader)
        if answering is not None:
            response, reader = answering.answer(response, reader)
        told = telling.told(response, self.request.version, may_keep=may_keep)
        if answering is None or not (answering.is_decoding or answering.scrubbed):
            self.repeats.told.keep(told, *parts)
        return told, reader

    async def _response(self, lease: Lease) -> Response:
        """Return the final response head (or 101), relaying interim ones."""
        for _ in range(MAX_INTERIM):
            try:
                response = read_response(await self._response_head(lease), self.request.method)
                if response.head.status == 101:
                    check_switched(self.passage.upgrade, response)
            except Malformed as problem:
                raise unreachable(f"{self.passage.authority}: {problem}", "malformed") from None
            status = response.head.status
            if status == 407 and lease.proxy is not None:
                raise wrong_credentials(lease.proxy)
            if status >= 200 or status == 101:
                return response
            if self.request.version == "1.1":
                self.client.write(telling.told_early(response, self.passage.answering))
        raise unreachable(f"{self.passage.authority} sent too many interim answers", "malformed")

    async def _response_head(self, lease: Lease) -> str:
        try:
            while (text := take_head(lease.stream.buffer)) is None:
                if lease.stream.buffer:
                    return await self._rest_of_head(lease.stream)
                if not await self._first_bytes(lease.stream):
                    raise StreamBroken("closed")
        except StreamBroken:
            if lease.is_reused and not lease.stream.buffer and self._may_repeat():
                raise _Stale from None
            raise unreachable(f"{self.passage.authority} closed the connection without an answer", "closed") from None
        return text

    async def _first_bytes(self, upstream: Stream) -> bool:
        """Wait for the answer's beginning; the limit counts from the end of the request."""
        limit_s = self.limits.first_byte_s
        until = within(limit_s)
        while True:
            try:
                return await upstream.more(until)
            except TimeoutError:
                now = within(0)
                until = (self.asked_at if self.is_upload_done else now) + limit_s
                if until <= now:
                    raise silent(self.passage.authority, limit_s) from None

    async def _rest_of_head(self, upstream: Stream) -> str:
        """Wait for the end of a head that has begun."""
        try:
            until = within(self.limits.answer_head_s)
            while (text := take_head(upstream.buffer)) is None:
                if not await upstream.more(until):
                    raise StreamBroken("closed")
            return text
        except TimeoutError:
            limit_s = self.limits.answer_head_s
            raise late(f"{self.passage.authority} did not end the head of its answer in {limit_s:g} s") from None

    def _may_repeat(self) -> bool:
        has_no_body = self.request.framing in (NO_BODY, Framing("length", 0))
        return has_no_body and self.request.method in _IDEMPOTENT and not self.passage.upgrade

    async def _body_down(self, head: bytes, upstream: Stream, reader: BodyReader, writer: BodyWriter) -> None:
        """Send head and body. Nothing is awaited after the last byte: the client may be gone by then."""
        try:
            unsent = await Pump(self.client, upstream, reader, writer, self.trail).run(head)
        except (StreamBroken, Malformed):
            raise Truncated from None
        self.client.write(unsent + self._end(reader, writer))

    def _end(self, reader: BodyReader, writer: BodyWriter) -> bytes:
        """Return the last bytes of the body, as framed. Raises Truncated when this is not where it ends."""
        try:
            payload = reader.end() if reader.may_end_here else None
        except Malformed:
            payload = None
        if payload is None:
            raise Truncated
        self.trail.received(payload)
        return (writer.encode(payload) if payload else b"") + writer.finish(reader.trailers)

    async def _tunnel(self, lease: Lease, response: Response) -> bool:
        try:
            self.trail.scrubs = answering = self.passage.answering and self.passage.answering.begun()
            sieve = answering and answering.sieve(response)
        except Malformed as problem:
            raise unreachable(f"{self.passage.authority}: {problem}", "malformed") from None
        changed = (("Connection", "Upgrade"), ("Upgrade", response.fields.get("upgrade", ("",))[0]))
        self.client.write(telling.told_early(response, self.passage.answering, changed))
        self.trail.protocol = "websocket" if is_websocket(response) else "upgraded"
        self.is_tunnel = True
        self.client.on_gone(None)  # the tunnel sees the end itself, after what was sent before it
        idle_s, half_idle_s = self.limits.upgrade_idle_s, self.limits.half_idle_s
        ways = (self.client, lease.stream, self.trail)
        self.trail.forwarded(await join(*ways, idle_s=idle_s, half_idle_s=half_idle_s, sieve=sieve))
        return False

    def _leave(self, lease: Lease) -> None:
        if not lease.is_kept:
            lease.stream.abort()


class _Stale(Exception):
    """A kept connection turned out closed before anything came back."""
