"""A client that speaks only HTTP/2 (gRPC, for one): every stream is judged, forwarded and recorded by itself.

    link ─ request ─▶ a task per stream ─▶ judge ─▶ H2Exchange      a stream that the client resets cancels its task
                                            └─ Refusal ─▶ an answer; for gRPC a status that its clients show

What one stream does wrong costs that stream; what breaks the connection ends all of them, and their upstream requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import judge_anywhere
from moat.proxy.flow import Arrival, Passage
from moat.proxy.http1 import Malformed, Request
from moat.proxy.http2 import CANCEL, INTERNAL_ERROR, MAX_STREAMS, NO_ERROR, PROTOCOL_ERROR, Head, Http2
from moat.proxy.http2_heads import is_grpc, read_request, response_fields
from moat.proxy.limits import Limits
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal, malformed
from moat.proxy.revoke import revoked
from moat.proxy.sample import begin_sample
from moat.proxy.server.asks import Asks
from moat.proxy.server.captures import Captures
from moat.proxy.server.h2_exchange import CutShort, H2Exchange
from moat.proxy.server.h2_lane import Lane, LaneBroken
from moat.proxy.server.h2_link import Link
from moat.proxy.server.h2_upstream import Upstreams
from moat.proxy.server.linger import linger
from moat.proxy.server.respond import responding
from moat.proxy.server.sign import signed
from moat.proxy.server.spending import Tunnel
from moat.proxy.server.stream import Stream

MAX_STREAMS_OF_A_RUN = 2_048  # as many as it may have connections: each may hold a window's bytes both ways

# What gRPC makes of HTTP statuses (grpc/doc/http-grpc-status-mapping.md); anything else is UNKNOWN.
_GRPC_STATUS = {400: 13, 403: 7, 404: 12, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN = 2

STOPPED = "the run was stopped"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class H2Services:
    """What HTTP/2 connections share. asks: questions to providers. streams: how many are open, by run."""

    upstreams: Upstreams
    asks: Asks
    captures: Captures = field(default_factory=Captures)
    streams: Counter[str] = field(default_factory=Counter)


class H2Client:
    """One HTTP/2 connection of a client. run: the run as it is now, raises Refusal; trail: a fresh one."""

    def __init__(
        self,
        stream: Stream,
        arrival: Arrival,
        services: H2Services,
        run: Callable[[], LiveRun],
        trail: Callable[[], Trail],
        limits: Limits,
        tunnel: Tunnel,
    ) -> None:
        self._tunnel = tunnel
        self._arrival = arrival
        self._scheme = "https" if arrival.bound is None else arrival.bound.scheme
        self._services = services
        self._run = run
        self._trail = trail
        self._limits = limits
        self._link = Link(stream, Http2(is_client=False), self._welcome)
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._passages: dict[Lane, Passage] = {}
        self._endings: dict[Lane, str] = {}
        self._group = asyncio.TaskGroup()
        self._silence = asyncio.timeout(limits.idle_s)
        self._is_leaving = False

    async def serve(self) -> None:
        """Serve until the client goes, or has been silent for long."""
        link = self._link
        async with self._group:
            try:
                async with self._silence:
                    await link.run()
            except TimeoutError:
                link.wire.goodbye()
                link.flush()
            if link.problem:
                self._trail().refused(malformed(link.problem))
            for task in self._tasks.values():
                task.cancel()
        if link.problem:
            await linger(link.stream, self._limits)  # the GOAWAY tells why
        link.stream.close()

    def end_outlived(self, run: LiveRun) -> None:
        """Reset the streams that may not go on under run, as it is now: some never end, and make no further request."""
        for lane, passage in self._passages.items():
            if why := revoked(run, passage):
                self._endings[lane] = why
                self._tasks[lane].cancel()

    def leave(self) -> None:
        """Take no more streams, and end with the last one."""
        self._is_leaving = True
        if not self._tasks:
            self._wait_for(0)

    def _wait_for(self, seconds: float) -> None:
        if not self._link.is_over and not self._silence.expired():
            self._silence.reschedule(asyncio.get_running_loop().time() + seconds)

    def _welcome(self, lane: Lane, head: Head) -> None:
        """Begin to serve a stream, unless there are too many, or the last one comes."""
        trail = self._trail()
        open_streams = self._services.streams
        is_full = len(self._tasks) >= MAX_STREAMS
        if self._is_leaving or is_full or open_streams[trail.run_id] >= MAX_STREAMS_OF_A_RUN:
            self._link.forget(lane)
            return self._link.wire.refuse(lane.number)
        open_streams[trail.run_id] += 1
        self._silence.reschedule(None)
        task = self._tasks[lane] = self._group.create_task(self._serve(lane, head, trail))
        lane.on_broken = lambda: _cancel(task)
        task.add_done_callback(lambda _: self._left(lane, trail.run_id))
        return None

    def _left(self, lane: Lane, run_id: str) -> None:
        del self._tasks[lane]
        self._passages.pop(lane, None)
        self._endings.pop(lane, None)
        self._services.streams[run_id] -= 1
        if not self._services.streams[run_id]:
            del self._services.streams[run_id]
        if not self._tasks:
            self._wait_for(0 if self._is_leaving else self._limits.idle_s)

    async def _serve(self, lane: Lane, head: Head, trail: Trail) -> None:
        """Serve one stream; whatever happens stays within it."""
        code = INTERNAL_ERROR
        try:
            code = await self._judged(lane, head, trail)
            await lane.settle()
        except LaneBroken:
            pass
        except asyncio.CancelledError:
            self._cut(lane, trail)
            code = CANCEL if lane in self._endings else code
            raise
        except Exception:
            log.exception("an HTTP/2 stream failed", extra={"run_id": trail.run_id})
            trail.failed("a fault of the proxy's own")
        finally:
            lane.leave(code)

    def _cut(self, lane: Lane, trail: Trail) -> None:
        """End the trail of a stream whose task was cancelled."""
        broken, link = lane.broken, self._link
        if broken is not None and broken.problem and not trail.status:
            return trail.refused(malformed(broken.problem))
        is_gone = link.stream.is_over or (broken is not None and broken.code is not None)
        reason = self._endings.get(lane) or link.problem or ("the client went away" if is_gone else STOPPED)
        return trail.forwarded(reason) if trail.status else trail.failed(reason)

    async def _spent(self, trail: Trail, passage: Passage) -> None:
        await self._tunnel.spend(trail.run_id, passage, trail.via)

    async def _judged(self, lane: Lane, head: Head, trail: Trail) -> int:
        """Take one request from judgement to its record; return what to reset the stream with if it is not over."""
        try:
            request = read_request(head.pairs, is_over=head.is_over, scheme=self._scheme)
            if request.framing.kind == "length":
                lane.expect(request.framing.length)
        except Malformed as problem:
            trail.refused(malformed(str(problem)))
            self._link.blame()
            return PROTOCOL_ERROR
        try:
            run = self._run()
            begin_sample(run, request, trail)
            answering = responding(run, self._arrival, request, trail, self._services.asks, self._limits.body_idle_s)
            if answering is not None:
                await self._tunnel.spend_at(answering.key, trail.via)
                await answering.over_http2(lane)
                return NO_ERROR
            passage = self._passages[lane] = judge_anywhere(run, self._arrival, request, trail)
            services = self._services
            exchange = H2Exchange(lane, request, passage, trail, services.upstreams, self._limits, services.captures)
            if passage.sign is not None:
                exchange.signing = partial(signed, run=run, asks=services.asks)
            exchange.spending = partial(self._spent, trail)
            await exchange.run()
        except Refusal as refusal:
            trail.refused(refusal)
            await _answer(lane, refusal, request)
        except CutShort as cut:
            trail.forwarded("the upstream broke off")
            return cut.code
        return NO_ERROR


async def _answer(lane: Lane, refusal: Refusal, request: Request) -> None:
    """Answer with a refusal. Interim heads may have gone before, a final one has not."""
    headers, body = refusal.answer()
    if is_grpc(request.fields):
        text = refusal.reason + (f"; {refusal.advice}" if refusal.advice else "")
        fields = [("content-type", "application/grpc"), *headers[2:]]
        status = str(_GRPC_STATUS.get(refusal.status, _GRPC_UNKNOWN))
        fields += [
            ("grpc-status", status),
            ("grpc-message", quote(f"moat: {text}", safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")),
        ]
        return lane.head(response_fields(200, fields), is_over=True)
    lane.head(response_fields(refusal.status, headers), is_over=request.method == "HEAD")
    if request.method != "HEAD":
        await lane.send(body)
        lane.finish(())
    return None


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
