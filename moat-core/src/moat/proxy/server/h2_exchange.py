"""One judged request of an HTTP/2 client on its way, over whatever version the upstream speaks. Mirrors `exchange`.

client lane ═ head ═▶ far           sent once more where the upstream certainly did nothing with it
client lane ─ body ─▶ far  (task)   an answer may come before the body is over, which is then told to stop
client lane ◀═ 1xx, head, body, trailers ═ far
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from moat.proxy.bodies import BodyReader
from moat.proxy.flow import Passage
from moat.proxy.holds import Share
from moat.proxy.http1 import NO_BODY, Malformed, Request, Response, end_to_end
from moat.proxy.http2 import INTERNAL_ERROR
from moat.proxy.http2_heads import response_fields
from moat.proxy.limits import Limits
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, silent, stalled, unreachable
from moat.proxy.server.captures import Captures, Known
from moat.proxy.server.exchange import MAX_INTERIM
from moat.proxy.server.h2_far import Far, Unsent
from moat.proxy.server.h2_hold import hold
from moat.proxy.server.h2_lane import LaneBroken, Near
from moat.proxy.server.h2_upstream import Upstreams
from moat.proxy.server.pool import Key
from moat.proxy.server.stall import Stall
from moat.proxy.server.stream import StreamBroken, within
from moat.proxy.telling import early
from moat.proxy.usage import metered
from moat.proxy.whole import WholeTask

_PIECE_BYTES = 65_536  # taken of an answer at once: the rest waits in the upstream's buffer, which is bounded


class CutShort(Exception):
    """The answer broke off after its head was sent: the client's stream must be reset. code: why."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__("the upstream broke off")
        self.code = INTERNAL_ERROR if code is None else code


@dataclass(slots=True)
class H2Exchange:
    """One request between a client's lane and an upstream. is_upload_done: whether its body was read to the end.

    asked_at: when the last of its body was sent.
    share: what the request's body has of the run's room, where it was held already.
    signing: signs the passage once the body was held; None for one that is not to be signed.
    """

    lane: Near
    request: Request
    passage: Passage
    trail: Trail
    upstreams: Upstreams
    limits: Limits = field(default_factory=Limits)
    captures: Captures = field(default_factory=Captures)
    is_upload_done: bool = True
    asked_at: float = 0.0
    share: Share = field(default_factory=Share)
    signing: Callable[[Passage], Awaitable[Passage]] | None = None
    spending: Callable[[Passage], Awaitable[None]] | None = None  # enters into the audit what is spent, before it is
    _share_down: Share = field(default_factory=Share)
    _begun: bytes = b""  # the beginning of the request's body, where it was held
    _upload_problem: Refusal | None = None
    _left_over: bytearray = field(default_factory=bytearray)  # of the answer, cut off its buffer and not read yet

    async def run(self) -> None:
        """Forward the request and its answer. Raises Refusal before an answer was begun, CutShort after.

        Raises LaneBroken when the client is gone.
        """
        if self.passage.body is not None:
            self.share = Share(self.passage.body.holds)
        with self.share:
            held = await hold(self.lane, self.request, self.passage, self.limits.body_idle_s, self.share)
            self.request, self.passage, self._begun = held.request, held.passage, held.begun
            if self.signing is not None:
                self.passage = await self.signing(self.passage)
            if self.spending is not None:
                await self.spending(self.passage)
            return await self._held()

    async def _held(self) -> None:
        self.passage.tell(self.trail)
        task = self.passage.whole
        if task is not None:
            self._share_down = Share(task.holds)
        if task is None or task.capture is None:
            return await self._sent()
        return await self.captures.apart(self._captured(task))

    async def _captured(self, task: WholeTask) -> None:
        with self.share, self._share_down as share:  # the client may have left them by then
            share.at_least(task.reserved_bytes)
            async with self.captures.turn(task) as known:
                return await self._sent() if known is None else await self._again(known)

    async def _sent(self) -> None:
        key = Key(self.trail.run_id, self.passage.authority, self.passage.grants, self.passage.upstream)
        try:
            return await self._over(await self.upstreams.reach(key))
        except Unsent as unsent:
            if self.trail.request_bytes:  # its body is gone
                raise unreachable(f"{self.passage.authority} gave the request back", "closed") from None
            if unsent.is_http1_wanted:
                self.upstreams.remember_without(key)
        try:
            return await self._over(await self.upstreams.reach(key, fresh=True))
        except Unsent:
            raise unreachable(f"{self.passage.authority} gave the request back twice", "closed") from None

    async def _over(self, far: Far) -> None:
        try:
            try:
                far.begin(self.request, self.passage)
            except (StreamBroken, LaneBroken, Malformed):
                raise Unsent from None
            if self.request.framing is NO_BODY:
                return await self._answer(far)
            return await self._both_ways(far)
        finally:
            far.leave()

    async def _both_ways(self, far: Far) -> None:
        self.is_upload_done = False
        outcome: Exception | None = None
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(self._upload(far))
            try:
                await self._answer(far)
            except (Refusal, CutShort, LaneBroken, Unsent) as problem:  # kept out of the group, which would wrap it
                outcome = problem
            upload.cancel()
        if outcome is not None:
            raise self._upload_problem if self._upload_problem and isinstance(outcome, Refusal) else outcome

    async def _upload(self, far: Far) -> None:
        """Send the client's body; a problem is remembered, and ends the wait for an answer."""
        reader = self.lane.body
        stall = Stall(self.limits.upload_idle_s, partial(self._moved, far), partial(self._give_up, far))
        try:
            with stall:
                if self._begun:
                    await self._send(far, self._begun, stall)
                self.share.give_back()
                while not reader.is_done:
                    if payload := reader.take(self.lane.buffer):
                        await self._send(far, payload, stall)
                    if reader.has_more or not (payload or reader.is_done):
                        await self._more_body()
            self.is_upload_done, self.asked_at = True, within(0)
            far.finish(self.passage.trailers(reader.trailers))
        except (StreamBroken, LaneBroken):
            return  # the upstream stopped reading, and its answer may still be on the way; or the client is gone
        except Refusal as problem:
            self._upload_problem = problem
            far.leave()

    async def _send(self, far: Far, payload: bytes, stall: Stall) -> None:
        self.trail.sent(payload)
        stall.is_waiting = True
        await far.send(payload)
        stall.is_waiting = False

    def _moved(self, far: Far) -> object:
        """Return what changes when the upstream takes or says something; None while it waits for the client."""
        trail = self.trail
        return None if self.lane.is_full else (far.untaken(), trail.request_bytes, trail.response_bytes)

    def _give_up(self, far: Far) -> None:
        self._upload_problem = stalled(self.passage.authority, self.limits.upload_idle_s)
        far.give_up()

    async def _more_body(self) -> None:
        """Wait for more of the client's body: for ever once there is an answer, as calls that stream both ways do."""
        if self.lane.body.has_more:
            return await asyncio.sleep(0)
        while True:
            try:
                async with asyncio.timeout(self.limits.body_idle_s):
                    await self.lane.more()
                    return
            except TimeoutError:
                if not self.trail.status:
                    raise Refusal(408, "the request's body did not come", kind="timeout") from None

    async def _answer(self, far: Far) -> None:
        response = await self._response(far)
        first = self.trail.now()
        try:
            reader = far.reader(response)
        except Malformed as problem:
            raise unreachable(f"{self.passage.authority}: {problem}", "malformed") from None
        with self._share_down as share:
            if (task := self.passage.whole) is not None:
                response, reader = await self.captures.settle(task, self.trail.run_id, response, reader, far, share)
            self.trail.answered(response.head.status, first)
            if self.trail.sample is not None:
                self.trail.sample.answer(response.head.headers.items, response.fields)
            reader = metered(self.passage.usage, response, self._head_down(response, reader), self.trail)
            if not self.lane.has_finished:
                await self._body_down(far, reader)
        self.trail.forwarded()
        if self.is_upload_done and not self._left_over:
            far.keep(response)

    async def _again(self, known: Known) -> None:
        """Answer as before: what the request would spend is spent. Its body was held, and is whole."""
        if not self.lane.body.is_done:
            self.lane.body.take(self.lane.buffer)
        self.is_upload_done = self.lane.body.is_done
        self.trail.answered(known.response.head.status)
        reader = self._head_down(known.response, known.reader())
        while not reader.is_done:
            await self.lane.send(reader.take(bytearray()))
        if not self.lane.has_finished:
            self.lane.finish(())
        self.trail.forwarded()

    def _head_down(self, response: Response, reader: BodyReader) -> BodyReader:
        """Send the head as the client gets it, and return the reader of its body. Raises Refusal."""
        told, reader = self._scrubbing(response, reader)
        headers = end_to_end(told.head.headers, told.fields, "alt-svc")
        is_over = reader.is_done and not reader.trailers
        self.lane.head(response_fields(told.head.status, headers), is_over=is_over)
        return reader

    def _scrubbing(self, response: Response, reader: BodyReader) -> tuple[Response, BodyReader]:
        if self.passage.answering is None:
            return response, reader
        self.trail.scrubs = answering = self.passage.answering.begun()
        return answering.answer(response, reader)

    async def _response(self, far: Far) -> Response:
        """Return the final response head, relaying interim ones."""
        authority = self.passage.authority
        try:
            for _ in range(MAX_INTERIM):
                response = await self._next_head(far)
                status = response.head.status
                if status == 101:
                    raise unreachable(f"{authority} changed the protocol unasked", "malformed")
                if status >= 200:
                    return response
                self.lane.head(response_fields(status, early(response, self.passage.answering).headers.items))
        except Malformed as problem:
            raise unreachable(f"{authority}: {problem}", "malformed") from None
        raise unreachable(f"{authority} sent too many interim answers", "malformed")

    async def _next_head(self, far: Far) -> Response:
        """Wait for a head; the limit counts from the end of the request."""
        authority, limit_s = self.passage.authority, self.limits.first_byte_s
        until = within(limit_s)
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await far.head()
            except TimeoutError:
                now = within(0)
                until = (self.asked_at if self.is_upload_done else now) + limit_s
                if until <= now:
                    raise silent(authority, limit_s) from None
            except (StreamBroken, LaneBroken) as broken:
                did = "reset the request" if isinstance(broken, LaneBroken) and broken.code is not None else "left it"
                raise unreachable(f"{authority} {did} without an answer", "closed") from None

    async def _body_down(self, far: Far, reader: BodyReader) -> None:
        """Pump the answer's body as the client takes it, and its trailers."""
        while not reader.is_done:
            payload, is_over = await self._next_payload(far, reader)
            if payload:
                self.trail.received(payload)
                await self.lane.send(payload)
            if is_over:
                break
        self.lane.finish(reader.trailers)

    async def _next_payload(self, far: Far, reader: BodyReader) -> tuple[bytes, bool]:
        """Return some of the body, and whether it ends with it though the reader cannot know. Raises CutShort."""
        try:
            if not (self._left_over and reader.has_more):  # what was cut off stays bounded
                piece = bytes(memoryview(far.buffer)[:_PIECE_BYTES])
                del far.buffer[: len(piece)]
                self._left_over += piece
            payload = reader.take(self._left_over)
            if reader.has_more:
                await asyncio.sleep(0)
                return payload, False
            if payload or reader.is_done or far.buffer or await far.more():
                return payload, False
            if reader.may_end_here:
                return reader.end(), True
        except (StreamBroken, Malformed):
            raise CutShort from None
        except LaneBroken as broken:
            raise CutShort(broken.code) from None
        raise CutShort
