"""The short way of an exchange: from callback to callback, without a task, while everything about it is plain.

    client ─ whole request ─▶ judged as ever ─▶ kept connection of the pool ─▶ upstream
    client ◀─ whole answer ── scrubbed as ever ◀──────────────────────────────── upstream

Plain: head and body came in one piece, a kept connection is there, the answer says its length and is not long. What is
not, goes the long way, by `Connection` and `Exchange`: a request before anything was done about it, an answer (late,
long, broken off) as an exchange that was begun. Nothing is decided here: the same functions decide for both ways.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from moat.proxy import telling
from moat.proxy.admit import LiveRun
from moat.proxy.bodies import answer_reader
from moat.proxy.flow import Arrival, Passage
from moat.proxy.http1 import Malformed, Request, read_request, read_response
from moat.proxy.record import EmitForwarded, Line, Trail, beginning_of, line_with, new_id
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import Scrub
from moat.proxy.server.pool import Key, Lease, Pool
from moat.proxy.server.spending import Tunnel, Use
from moat.proxy.server.stream import Stream
from moat.proxy.server.waits import FOREVER, waits_of
from moat.proxy.server.watch import Watch

MAX_BODY_BYTES = 65_536  # longer ones gain nothing by it
MAX_WAYS = 512  # some megabytes at most
_MAX_RAW_BYTES = 4_096
_END = b"\r\n\r\n"

LookUp = Callable[[], LiveRun]
Judge = Callable[[LiveRun, Request], tuple[Passage, Trail]]


@dataclass(slots=True)
class Begun:
    """An exchange whose request was sent, to be finished the long way."""

    request: Request
    passage: Passage
    trail: Trail
    lease: Lease


@dataclass(slots=True)
class _Answer:
    """What was worked out for an answer; holds for the same bytes on the same way."""

    raw: bytes
    status: int
    head: bytes
    length: int
    line: Line


@dataclass(slots=True)
class _Way:
    """What was worked out for a request; holds for the same bytes while run and its secrets are the same."""

    raw: bytes = field(repr=False)
    request: Request
    run: LiveRun
    scrub: Scrub
    passage: Passage
    key: Key
    head_up: bytes = field(repr=False)
    trail: Trail
    beginning: str
    answer: _Answer | None = None


class Ways:
    """The ways of all runs, since what asks anew over a new connection mostly asks the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Arrival, bytes], _Way] = {}

    def find(self, run: LiveRun, arrival: Arrival, raw: bytes) -> _Way | None:
        """Return what is known for a request of run with this head."""
        way = self._known.get((arrival, raw))
        return way if way is not None and way.run is run and way.scrub is run.spent.scrub else None

    def keep(self, arrival: Arrival, way: _Way) -> None:
        """Remember a way; the oldest makes room."""
        if len(self._known) >= MAX_WAYS:
            del self._known[next(iter(self._known))]
        self._known[arrival, way.raw] = way

    def drop_run(self, run_id: str) -> None:
        """Forget the ways of a run, with the credentials in them."""
        self._known = {key: way for key, way in self._known.items() if way.run.context.run_id != run_id}


@dataclass(slots=True)
class Common:
    """What relays share."""

    pool: Pool
    emit: EmitForwarded
    watch: Watch = field(default_factory=Watch)
    ways: Ways = field(default_factory=Ways)


class Relay:
    """The short way on one client connection."""

    def __init__(
        self, client: Stream, arrival: Arrival, look_up: LookUp, judge: Judge, common: Common, tunnel: Tunnel
    ) -> None:
        self._client = client
        self._tunnel = tunnel
        self._arrival = arrival
        self._look_up = look_up
        self._judge = judge
        self._common = common
        self._pool = common.pool
        self._way: _Way | None = None
        self._entered: _Way | None = None
        self._use: Use | None = None  # of what the way that was entered spends, if it spends anything
        self._unentered: Key | None = None  # what waits to be entered
        self._lease: Lease | None = None
        self._body_bytes = 0
        self._at = self._first = 0.0
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        self._idle_s = 0.0
        self._is_leaving = False
        self.started = 0.0

    async def serve(self, idle_s: float) -> Begun | None:
        """Serve what can go the short way. Return what was begun and cannot; None: look at the client's stream.

        Raises TimeoutError when the client was silent for idle_s.
        """
        self.started = time.monotonic()
        if self._arrival.where is not None or (self._client.buffer and not (self._begin() or self._unentered)):
            return None  # an endpoint may answer by itself
        self._client.resume()
        self._woken = self._loop.create_future()
        self._idle_s, waits = idle_s, waits_of(self._loop)
        waits.begin(self, self._loop.time() + idle_s)
        self._client.sink = self._on_client
        try:
            await self._woken
        except asyncio.CancelledError:
            self._woken = None
            raise
        finally:
            waits.end(self)
            self._client.sink = self._unentered = None
        return self.hand_over()

    def hand_over(self) -> Begun | None:
        """Give up the exchange under way, for somebody else to finish or to end; None when there is none."""
        lease, way, self._lease = self._lease, self._way, None
        if lease is None or way is None:
            return None
        self._common.watch.end(self)
        lease.stream.sink = None
        trail = replace(way.trail, id=new_id(), started=self.started, at=self._at, first=self._first)
        trail.request_bytes = self._body_bytes
        return Begun(way.request, way.passage, trail, lease)

    def leave(self) -> bool:
        """Take no request after the one under way; return whether there is one."""
        self._is_leaving = True
        return self._lease is not None or self._unentered is not None

    def wake(self) -> None:
        """Let the long way go on from here."""
        if self._woken is not None and not self._woken.done():
            self._client.sink = None
            self._woken.set_result(None)

    def _on_client(self) -> None:
        """Take what came from the client: a request, the next one too early, or its end."""
        if self._lease is None:
            if self._client.is_over and not self._client.buffer:
                self._client.owe_nothing()
            self._begin_or_wake()
        elif self._client.is_over:
            self.wake()

    def _begin_or_wake(self) -> None:
        """Send a request on, or have it wait for the audit; else it is one for the long way."""
        if not self._begin() and self._unentered is None:
            self.wake()

    def _begin(self) -> bool:
        """Send a request on; False: it is one for the long way, and nothing was done about it."""
        client, self._unentered = self._client, None
        if client.is_over or client.is_full:
            return False
        data = bytes(client.buffer)
        way = self._known_way(data)
        if way is None or len(data) - len(way.raw) != way.request.framing.length:
            return False
        if way is not self._entered and not self._is_entered(way):
            return False
        lease = self._pool.take(way.key)
        if lease is None:
            return False
        if (use := self._use) is not None:
            if use.count:
                use.count += 1
            else:
                self._tunnel.count(use)
        client.buffer.clear()
        self.started, self._at, self._first, self._lease = time.monotonic(), time.time(), 0.0, lease
        self._body_bytes = way.request.framing.length
        lease.stream.resume()
        lease.stream.sink = self._on_upstream
        lease.stream.write(way.head_up + data[len(way.raw) :] if self._body_bytes else way.head_up)
        self._common.watch.begin(self)
        return True

    def _noted(self, key: Key, problem: str) -> None:
        """Go on with what waited for the audit, if it still does; where it is not entered, the long way says why."""
        if self._unentered is not key:
            return
        if problem:
            self._unentered = None
            return self.wake()
        return self._begin_or_wake()

    def _is_entered(self, way: _Way) -> bool:
        """Whether the audit has what a way spends; if not, it is to be entered."""
        self._use = self._tunnel.known(way.key)
        if self._use is None and way.key.grants:
            self._unentered = way.key
            self._tunnel.ask(way.key, self._arrival.via, partial(self._noted, way.key))
            return False
        self._tunnel.came()
        self._entered = way
        return True

    def _known_way(self, data: bytes) -> _Way | None:
        """Return the way of the request at the beginning of data, None for one that goes the long way."""
        way = self._way
        try:
            run = self._look_up()
            if way is not None and way.run is run and way.scrub is run.spent.scrub and data.startswith(way.raw):
                return way
            end = data.find(_END) + len(_END)
            if end < len(_END) or len(data) - end > MAX_BODY_BYTES:
                return None
            raw = data[:end]
            way = self._common.ways.find(run, self._arrival, raw) or self._new_way(run, raw)
        except (Refusal, Malformed):
            return None  # the long way finds it again, and answers
        self._way = way
        return way

    def _new_way(self, run: LiveRun, raw: bytes) -> _Way | None:
        """Judge a request. Raises Refusal and Malformed."""
        request = read_request(raw[: -len(_END)].decode("latin-1"))
        if not _is_plain(request) or run.context.trace_bodies:
            return None
        passage, trail = self._judge(run, request)
        if passage.body is not None or passage.whole is not None or passage.upstream is not None or passage.usage:
            return None
        if passage.sign is not None:
            return None
        passage.tell(trail)
        key = Key(trail.run_id, passage.authority, passage.grants, passage.upstream)
        head = telling.head_up(passage, request, None)
        way = _Way(raw, request, run, run.spent.scrub, passage, key, head, trail, beginning_of(trail))
        if len(raw) <= _MAX_RAW_BYTES:
            self._common.ways.keep(self._arrival, way)
        return way

    def _on_upstream(self) -> None:
        """Pass the answer on when it is whole; wake the long way for one that is not plain."""
        lease, way = self._lease, self._way
        if lease is None or way is None:
            return
        stream, now = lease.stream, time.monotonic()
        self._first = self._first or now
        data = bytes(stream.buffer)
        answer = self._known_answer(way, data)
        if answer is None or stream.is_over or len(data) > len(answer.raw) + answer.length:
            return self.wake()
        if len(data) < len(answer.raw) + answer.length:
            return None  # the rest is on its way
        body, line = data[len(answer.raw) :], answer.line
        if answering := way.passage.answering:
            came, body = body, answering.latest.whole(body)
            if body is not came:
                line = self._line(way, answer.status, answer.length, line.scrubbed + answering.latest.count(came))
        stream.sink = self._lease = None
        stream.buffer.clear()
        self._client.write(answer.head + body)
        self._common.watch.end(self)
        self._pool.give_back(lease)
        began, first = self.started, self._first
        self._common.emit(way.trail.run_id, line, self._at, (now - began) * 1000, (first - began) * 1000)
        if self._is_leaving:
            self.wake()
        elif self._client.buffer:
            self._begin_or_wake()
        return None

    def _known_answer(self, way: _Way, data: bytes) -> _Answer | None:
        """Return how the answer at the beginning of data is told; None for one that goes the long way."""
        answer = way.answer
        if answer is not None and data.startswith(answer.raw):
            return answer
        end = data.find(_END) + len(_END)
        if end < len(_END):
            return None
        scrubbed = 0
        try:
            response = read_response(data[: end - len(_END)].decode("latin-1"), way.request.method)
            if not response.keeps_alive or response.head.status < 200 or response.framing.length > MAX_BODY_BYTES:
                return None
            if response.framing.kind not in ("none", "length"):
                return None
            if (found := way.passage.answering) is not None:
                answering = found.begun()
                response, _ = answering.answer(response, answer_reader(response.framing))
                if answering.is_decoding:
                    return None
                scrubbed = answering.scrubbed
        except (Refusal, Malformed):
            return None
        head = telling.told(response, way.request.version, may_keep=True).head
        status, length = response.head.status, response.framing.length
        way.answer = _Answer(data[:end], status, head, length, self._line(way, status, length, scrubbed))
        return way.answer

    def _line(self, way: _Way, status: int, length: int, scrubbed: int) -> Line:
        return line_with(way.beginning, status, way.request.framing.length, length, scrubbed)

    def look(self, now: float) -> float:
        """End the wait when nothing has been asked for too long. See Waits."""
        left_s = self.started + self._idle_s - time.monotonic()
        if self._woken is None or self._woken.done():
            return FOREVER
        if self._lease is not None or left_s > 0:
            return now + max(left_s, 0.0)
        self._woken.set_exception(TimeoutError())
        return FOREVER


def _is_plain(request: Request) -> bool:
    is_held_up = "expect" in request.fields or "upgrade" in request.fields
    return request.keeps_alive and not is_held_up and request.framing.kind in ("none", "length")
