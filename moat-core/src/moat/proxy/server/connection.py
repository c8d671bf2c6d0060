"""One client connection, from its first byte to its last: reads requests, has them judged, forwards or refuses them.

    proxy door, token listener ─▶ serve_proxy ─┬─ CONNECT ─▶ serve_tunnel ─▶ TLS, or plain http on port 80 ─┐
                                               └─ http://… ─▶ exchange                                      │
    http, tls doors ─▶ transparent ─▶ serve_bound(authority of the local address) ◀─────────────────────────┘

Every way out of a request ends its Trail once. A client that goes away cancels what is done for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from moat.api.http import Authority
from moat.proxy.admit import Admission, LiveRun
from moat.proxy.budget import FailureBudget
from moat.proxy.flow import Arrival, Passage, Via, judge_connect
from moat.proxy.http1 import Malformed, Request, read_request, take_head
from moat.proxy.limits import Limits
from moat.proxy.record import Emit, Trail
from moat.proxy.refusal import Refusal, closed, malformed, unidentified
from moat.proxy.repeats import Repeats
from moat.proxy.revoke import revoked
from moat.proxy.server.exchange import Exchange, Truncated
from moat.proxy.server.greeting import NoHandshake, greet
from moat.proxy.server.h2_client import H2Client, H2Services
from moat.proxy.server.hold import hold
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.local import local_answer
from moat.proxy.server.pool import Pool
from moat.proxy.server.stream import PlainStream, Stream, StreamBroken, within

_TLS_HANDSHAKE = 0x16  # RFC 8446 §5.1: the first byte of a ClientHello's record
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(slots=True)
class Services:
    """What connections share. Replaced whole when the daemon configures anew."""

    admission: Admission
    leaves: Leaves
    pool: Pool
    h2: H2Services
    emit: Emit
    limits: Limits = field(default_factory=Limits)
    failures: FailureBudget = field(default_factory=FailureBudget)

    def close(self) -> None:
        """Close the upstream connections that are not in use, and the others when they are not any more."""
        self.pool.close()
        self.h2.upstreams.close()


@dataclass(slots=True)
class Connection:
    """One connection of a client.

    run_id: of its door, or of the token its CONNECT came with; "" while every request brings its own token.
    only: the one run whose token counts here; "" for any. serving: whose request it served last.
    current: the exchange under way, or the last one. ending: why it is cancelled, if it is.
    """

    services: Services
    run_id: str
    only: str = ""
    serving: str = ""
    repeats: Repeats = field(default_factory=Repeats)
    current: Exchange | None = None
    ending: str = "the run was stopped"

    def outlived(self, run: LiveRun) -> str:
        """Return why what is open here may not go on under run, as it is now; "" if it may."""
        if self.current is None or not self.current.is_tunnel or run.context.run_id not in (self.run_id, self.serving):
            return ""
        return revoked(run, self.current.passage)

    async def serve_proxy(self, stream: PlainStream) -> None:
        """Serve a client that knows it talks to a proxy."""
        arrival = Arrival("http")
        while (request := await self._next(stream, arrival)) is not None:
            if request.method == "CONNECT":
                authority = await self._connect(stream, request)
                if authority is not None:
                    return await self.serve_tunnel(stream, authority)
            elif not await self._serve(stream, arrival, request):
                break
        return stream.close()

    async def serve_tunnel(self, stream: PlainStream, authority: Authority) -> None:
        """Serve what comes through a CONNECT to authority."""
        trail = self._trail("connect", "CONNECT", authority)
        first = await self._first_byte(stream)
        if first is None:
            trail.failed("nothing came through the tunnel")
            return stream.close()
        if first == _TLS_HANDSHAKE:
            return await self.serve_tls(stream, Authority("https", authority.host, authority.port), "connect")
        if authority.scheme != "http":
            refusal = malformed(f"only TLS goes through a tunnel to port {authority.port}; plain http to port 80")
            trail.refused(refusal)
            stream.write(refusal.render())
            return stream.close()
        return await self.serve_bound(stream, Arrival("connect", authority))

    async def serve_tls(self, stream: PlainStream, authority: Authority, via: Via) -> None:
        """Shake hands as authority and serve the requests inside."""
        arrival, services = Arrival(via, authority), self.services
        try:
            inner = await greet(stream, services.leaves, authority.host, services.limits.handshake_s)
        except NoHandshake as problem:
            self._trail(via, "CONNECT" if via == "connect" else "", authority).failed(str(problem))
            return stream.close()
        if inner.protocol == "h2":
            trail = partial(self._trail, via, "", authority)
            return await H2Client(inner, arrival, services.h2, self._run, trail, services.limits).serve()
        return await self.serve_bound(inner, arrival)

    async def serve_bound(self, stream: Stream, arrival: Arrival) -> None:
        """Serve the requests of a connection that is for one authority."""
        while (request := await self._next(stream, arrival)) is not None:
            if not await self._serve(stream, arrival, request):
                break
        stream.close()

    async def _next(self, stream: Stream, arrival: Arrival) -> Request | None:
        """Return the next request, or None when there is none: end, silence, or a head that was refused."""
        try:
            if not stream.buffer and not await stream.more(within(self.services.limits.idle_s)):
                return None
            until = within(self.services.limits.head_s)
            while (text := take_head(stream.buffer)) is None:
                if not await stream.more(until):
                    return None
            return read_request(text)
        except (TimeoutError, StreamBroken):
            return None
        except Malformed as problem:
            refusal = malformed(str(problem))
            self._trail(arrival.via, "", arrival.bound).refused(refusal)
            await _answer(stream, refusal, self.services.limits)
            return None

    async def _connect(self, stream: PlainStream, request: Request) -> Authority | None:
        trail = self._trail("connect")
        try:
            run = await self._identify(stream, request, trail)
            authority = judge_connect(run, request, trail)
        except Refusal as refusal:
            trail.refused(refusal)
            await _answer(stream, refusal, self.services.limits, request)
            if not _keeps(refusal, request):
                stream.close()
            return None
        self.run_id = run.context.run_id
        stream.write(_CONNECTED)
        return authority

    async def _serve(self, stream: Stream, arrival: Arrival, request: Request) -> bool:
        """Take one request from judgement to its record; return whether the connection goes on."""
        trail = self._trail(arrival.via, "", arrival.bound)
        trail.ask(request.method, request.target)
        try:
            run = await self._identify(stream, request, trail) if arrival.bound is None else self._run()
            if arrival.bound is None and (answer := local_answer(run, request)):
                stream.write(answer)
                return False
            passage = self.repeats.judge(run, arrival, request, trail)
            request, passage = await hold(stream, request, passage, self.services.limits.body_idle_s)
            return await self._exchange(stream, request, passage, trail)
        except Refusal as refusal:
            trail.refused(refusal)
            await _answer(stream, refusal, self.services.limits, request)
            return _keeps(refusal, request)
        except (Truncated, StreamBroken) as problem:
            cut = "the upstream broke off" if isinstance(problem, Truncated) else "the client went away"
            trail.forwarded(cut)
            stream.abort()
            return False

    async def _exchange(self, stream: Stream, request: Request, passage: Passage, trail: Trail) -> bool:
        """Forward a judged request and its answer; return whether the connection goes on."""
        services = self.services
        exchange = Exchange(stream, request, passage, trail, services.pool, services.limits, self.repeats)
        self.current = exchange
        stream.on_gone(_cancels_this_task())
        try:
            keeps = await exchange.run()
        except asyncio.CancelledError:
            self._end_cancelled(stream, trail)
            raise
        finally:
            stream.on_gone(None)
        if not exchange.is_upload_done:
            await _linger(stream, services.limits)
        return keeps

    async def _identify(self, stream: Stream, request: Request, trail: Trail) -> LiveRun:
        """Return whose request this is. Raises Refusal, late for a peer that has shown many wrong tokens."""
        if self.run_id:
            return self._run()
        values = request.fields.get("proxy-authorization", ())
        run = self.services.admission.by_token(values[0]) if len(values) == 1 else None
        if run is None or (self.only and run.context.run_id != self.only):
            trail.ask(request.method, "" if request.method == "CONNECT" else request.target)
            refusal = unidentified()
            if values and self.services.failures.is_spent_by(stream.peer):
                trail.is_done = True  # what was recorded so far tells enough, and a flood must not fill a disk
                await asyncio.sleep(self.services.limits.guess_delay_s)
                refusal.keeps = False
            raise refusal
        self.serving = trail.run_id = run.context.run_id
        return run

    def _run(self) -> LiveRun:
        """Return the run as it is now: it may have been replaced since the connection began."""
        run = self.services.admission.by_id(self.run_id)
        if run is None:
            raise closed()
        return run

    def _trail(self, via: str, method: str = "", authority: Authority | None = None) -> Trail:
        trail = Trail(self.services.emit, self.run_id, via, method)
        if authority is not None:
            trail.aim(authority)
        return trail

    def _end_cancelled(self, stream: Stream, trail: Trail) -> None:
        reason = "the client went away" if stream.is_over else self.ending
        if trail.status:
            trail.forwarded(reason)
        else:
            trail.failed(reason)

    async def _first_byte(self, stream: PlainStream) -> int | None:
        with suppress(TimeoutError, StreamBroken):
            if stream.buffer or await stream.more(within(self.services.limits.handshake_s)):
                return stream.buffer[0]
        return None


def _cancels_this_task() -> Callable[[], None]:
    """Return what stops what is done for a client, to be called when it is gone."""
    task = asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            task.cancel()

    return cancel


def _keeps(refusal: Refusal, request: Request) -> bool:
    """Whether the connection goes on after a refusal: never with an unread body on it (RFC 9112 §9.3)."""
    return refusal.keeps and request.keeps_alive and request.framing.kind == "none"


async def _answer(stream: Stream, refusal: Refusal, limits: Limits, request: Request | None = None) -> None:
    """Write a refusal."""
    keeps = request is not None and _keeps(refusal, request)
    refusal.keeps = keeps
    stream.write(refusal.render("GET" if request is None else request.method))
    if not keeps and (request is None or request.framing.kind != "none"):
        await _linger(stream, limits)


async def _linger(stream: Stream, limits: Limits) -> None:
    """Read on for a moment: closing on unread bytes resets the connection and loses the answer (RFC 9112 §9.6)."""
    with suppress(TimeoutError, StreamBroken):
        seen, until = 0, within(limits.linger_s)
        while seen < limits.linger_bytes and await stream.more(until):
            seen += len(stream.buffer)
            stream.buffer.clear()
