"""One client connection, from its first byte to its last: reads requests, has them judged, forwards or refuses them.

    proxy door, token listener ─▶ serve_proxy ─┬─ CONNECT ─▶ serve_tunnel ─▶ TLS, or plain http on port 80 ─┐
                                               └─ http://… ─▶ exchange                                      │
    http, tls doors ─▶ transparent ─▶ serve_bound(authority of the local address) ◀─────────────────────────┘

Every way out of a request ends its Trail once. A client that goes away cancels what is done for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from moat.api.endpoints import Tcp
from moat.api.http import Authority
from moat.proxy.admit import Admission, LiveRun
from moat.proxy.budget import FailureBudget
from moat.proxy.connects import Connect
from moat.proxy.endpoint import connect_anywhere
from moat.proxy.flow import Arrival, Passage, inside
from moat.proxy.holds import Share
from moat.proxy.http1 import Malformed, Request, read_request, take_head
from moat.proxy.limits import Limits
from moat.proxy.record import Emit, Trail
from moat.proxy.refusal import Refusal, closed, malformed, unidentified
from moat.proxy.repeats import Repeats
from moat.proxy.revoke import revoked
from moat.proxy.sample import begin_sample
from moat.proxy.server.endpoints import serve_endpoint
from moat.proxy.server.exchange import Exchange, Truncated
from moat.proxy.server.greeting import NoHandshake, first_byte, greet
from moat.proxy.server.guesses import Challenge
from moat.proxy.server.h2_client import H2Client, H2Services
from moat.proxy.server.h2_near import over_either
from moat.proxy.server.hold import hold, share_of
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.linger import drained, linger
from moat.proxy.server.local import local_answer
from moat.proxy.server.pool import Lease, Pool
from moat.proxy.server.refuse import keeps, refuse
from moat.proxy.server.relay import Begun, Common, Relay
from moat.proxy.server.respond import responding
from moat.proxy.server.sign import signed
from moat.proxy.server.spending import Spending, Tunnel
from moat.proxy.server.stream import PlainStream, Stream, StreamBroken, within

_TLS_HANDSHAKE = 0x16  # RFC 8446 §5.1: the first byte of a ClientHello's record
Forwarding = Coroutine[None, None, bool]
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(slots=True)
class Services:
    """What connections share. Replaced whole when the daemon configures anew."""

    admission: Admission
    leaves: Leaves
    pool: Pool
    h2: H2Services
    emit: Emit
    relaying: Common
    spending: Spending
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
    only: the one run whose token counts here; "" for any. serving: whose request it served last. challenge: its 407s.
    identified_by: the moment when it must have shown one. on_identified: told of each run whose token it shows; raises
    Refusal when that run has no room for it.
    current: what the request or stream under way was judged to be; None between them, and on the short way, which takes
    short answers only. exchange: what forwards it, if it is forwarded the long way. http2: the client, if it speaks
    that. relay: the short way, if there is one. ending: why it is cancelled, if it is. is_asking, is_leaving: whether a
    request is under way the long way, and whether no further one is taken.
    """

    services: Services
    challenge: Challenge
    run_id: str
    only: str = ""
    serving: str = ""
    repeats: Repeats = field(default_factory=Repeats)
    current: Passage | None = None
    exchange: Exchange | None = None
    http2: H2Client | None = None
    relay: Relay | None = None
    ending: str = "the run was stopped"
    is_asking: bool = False
    is_leaving: bool = False
    identified_by: float = math.inf
    on_identified: Callable[[str], None] = field(default=lambda _: None)
    tunnel: Tunnel = field(init=False)

    def __post_init__(self) -> None:
        self.tunnel = self.services.spending.tunnel()

    @property
    def is_known(self) -> bool:
        """Whether it was said whose connection this is."""
        return bool(self.run_id or self.serving)

    def outlived(self, run: LiveRun) -> str:
        """Return why what is open here may not go on under run, as it is now; "" if it may."""
        is_its = run.context.run_id in (self.run_id, self.serving)
        return revoked(run, self.current) if is_its and self.current is not None else ""

    def end_outlived(self, run: LiveRun, task: asyncio.Task[None]) -> None:
        """End what is open here and may not go on under run, as it is now. task: of this connection."""
        if self.http2 is not None and run.context.run_id == self.run_id:
            self.http2.end_outlived(run)
        elif why := self.outlived(run):
            self.ending = why
            task.cancel()

    def leave(self, task: asyncio.Task[None]) -> None:
        """End when the exchange under way is done, at once without one; what was upgraded never is. task: of this."""
        self.is_leaving = True
        if self.http2 is not None:
            return self.http2.leave()
        is_asking = self.is_asking and not (self.exchange is not None and self.exchange.is_tunnel)
        if not is_asking and not (self.relay is not None and self.relay.leave()):
            self.ending = "moat is stopped or replaced"
            task.cancel()
        return None

    async def serve_proxy(self, stream: PlainStream) -> None:
        """Serve a client that knows it talks to a proxy."""
        arrival = Arrival("http")
        while (request := await self._next(stream, arrival)) is not None:
            if request.method == "CONNECT":
                target = self._connect_again(stream, request) or await self._connect(stream, request)
                if isinstance(target, Tcp):
                    return await serve_endpoint(self, stream, target)
                if target is not None:
                    return await self.serve_tunnel(stream, target)
            elif not await self._serve(stream, arrival, request) or self.is_leaving:
                break
        return stream.close()

    async def serve_tunnel(self, stream: PlainStream, authority: Authority) -> None:
        """Serve what comes through a CONNECT to authority."""
        began, first = (time.monotonic(), time.time()), await first_byte(stream, self.services.limits.handshake_s)
        if first == _TLS_HANDSHAKE:
            return await self.serve_tls(stream, inside(authority))
        trail = self.trail("connect", "CONNECT", authority)
        trail.started, trail.at = began
        if first is None:
            trail.failed("nothing came through the tunnel")
            return stream.close()
        if authority.scheme != "http":
            refusal = malformed(f"only TLS goes through a tunnel to port {authority.port}; plain http to port 80")
            trail.refused(refusal)
            stream.write(refusal.render())
            return stream.close()
        return await self.serve_bound(stream, Arrival("connect", authority))

    async def serve_tls(self, stream: PlainStream, arrival: Arrival) -> None:
        """Shake hands as the authority that the connection is bound to, and serve the requests inside."""
        via, host = arrival.via, arrival.bound.host if arrival.bound is not None else ""
        try:
            inner = await greet(stream, self.services.leaves, host, self.services.limits.handshake_s)
        except NoHandshake as problem:
            self.trail(via, "CONNECT" if via == "connect" else "", arrival.bound).failed(str(problem))
            return stream.close()
        if inner.protocol == "h2":
            return await self.serve_http2(inner, arrival)
        return await self.serve_bound(inner, arrival)

    async def serve_http2(self, stream: Stream, arrival: Arrival) -> None:
        """Serve a client that speaks HTTP/2."""
        trail = partial(self.trail, arrival.via, "", arrival.bound)
        h2, limits = self.services.h2, self.services.limits
        self.http2 = H2Client(stream, arrival, h2, self.run, trail, limits, self.tunnel)
        await self.http2.serve()

    async def serve_bound(self, stream: Stream, arrival: Arrival) -> None:
        """Serve the requests of a connection that is for one authority."""
        judged = partial(self._judged, arrival)
        relay = Relay(stream, arrival, self.run, judged, self.services.relaying, self.tunnel)
        self.relay = relay
        try:
            while await self._relayed(stream, relay) and not self.is_leaving:
                request = await self._next(stream, arrival)
                if request is None or not await self._serve(stream, arrival, request):
                    break
        except TimeoutError:
            pass
        finally:
            self.relay = None  # a cycle: what TLS holds is let go now, not when the collector finds it
        stream.close()

    async def _relayed(self, stream: Stream, relay: Relay) -> bool:
        """Serve what can go the short way, till a request comes that cannot. Raises TimeoutError; False: it is over."""
        while True:
            try:
                begun = await relay.serve(self.services.limits.idle_s)
            except asyncio.CancelledError:
                if (begun := relay.hand_over()) is not None:
                    self._end_cancelled(stream, begun.trail)
                    begun.lease.stream.abort()
                raise
            if begun is None:
                return True
            going_on = self._go_on(stream, begun)
            if not await self._settled(stream, begun.request, begun.trail, going_on) or self.is_leaving:
                return False

    async def _go_on(self, stream: Stream, begun: Begun) -> bool:
        """Finish what the short way began, unless it may not go on since. Raises Refusal."""
        try:
            if why := revoked(self.run(), begun.passage):
                raise Refusal(403, why)
        except Refusal:
            begun.lease.stream.abort()
            raise
        return await self._exchange(stream, begun.request, begun.passage, begun.trail, begun.lease, Share())

    async def _next(self, stream: Stream, arrival: Arrival) -> Request | None:
        """Return the next request, or None when there is none: end, silence, or a head that was refused."""
        try:
            await (stream.drain() if self.is_known else drained(stream, self.identified_by))
            if not stream.buffer and not await stream.more(self._until(self.services.limits.idle_s)):
                return None
            until = 0.0
            while (text := take_head(stream.buffer)) is None:
                until = until or self._until(self.services.limits.head_s)
                if not await stream.more(until):
                    return None
            return read_request(text)
        except (TimeoutError, StreamBroken):
            return None
        except Malformed as problem:
            refusal = malformed(str(problem))
            self.trail(arrival.via, "", arrival.bound).refused(refusal)
            await refuse(stream, refusal, self.services.limits)
            return None

    def _until(self, seconds: float) -> float:
        """Return when to wait no longer for what a client may take so many seconds for."""
        return within(seconds) if self.is_known else min(within(seconds), self.identified_by)

    def _connect_again(self, stream: PlainStream, request: Request) -> Authority | None:
        """Let a CONNECT through that is like one before it, and return whom it is for; None: it must be judged."""
        known = self.services.admission.connects.find(self.run_id, self.only, request)
        if known is None:
            return None
        if not self.run_id:
            try:
                self.on_identified(known.run_id)
            except Refusal:
                return None  # it is found again, and told
            self.run_id = self.serving = known.run_id
        self.challenge.meet()
        stream.write(_CONNECTED)
        return known.target

    async def _connect(self, stream: PlainStream, request: Request) -> Authority | Tcp | None:
        trail = self.trail("connect")
        try:
            run = await self._identify(stream, request, trail)
            target = connect_anywhere(run, request, trail)
        except Refusal as refusal:
            trail.refused(refusal)
            await refuse(stream, refusal, self.services.limits, request)
            if not keeps(refusal, request):
                stream.close()
            return None
        if isinstance(target, Authority) and self.services.admission.by_id(run.context.run_id) is run:
            connect = Connect(request, run.context.run_id, target)
            self.services.admission.connects.keep(self.run_id, self.only, connect)
        self.run_id = run.context.run_id
        stream.write(_CONNECTED)
        return target

    async def _serve(self, stream: Stream, arrival: Arrival, request: Request) -> bool:
        """Take one request from judgement to its record; return whether the connection goes on."""
        trail = self.trail(arrival.via, "", arrival.bound)
        trail.introduce(request.version, request.fields)
        trail.ask(request.method, request.target)
        return await self._settled(stream, request, trail, self._forward(stream, arrival, request, trail))

    async def _forward(self, stream: Stream, arrival: Arrival, request: Request, trail: Trail) -> bool:
        run = await self._identify(stream, request, trail) if arrival.bound is None else self.run()
        if arrival.bound is None and (answer := local_answer(run, request)):
            stream.write(answer)
            return False
        begin_sample(run, request, trail)
        asks, body_idle_s = self.services.h2.asks, self.services.limits.body_idle_s
        if (answering := responding(run, arrival, request, trail, asks, body_idle_s)) is not None:
            await self.tunnel.spend_at(answering.key, trail.via)
            return await answering.over_http1(stream)
        self.current = passage = self.repeats.judge(run, arrival, request, trail)
        with share_of(passage) as share:
            request, passage = await hold(stream, request, passage, body_idle_s, share)
            passage = await signed(passage, run, asks)
            await self.tunnel.spend(trail.run_id, passage, trail.via)
            return await self._exchange(stream, request, passage, trail, None, share)

    async def _settled(self, stream: Stream, request: Request, trail: Trail, forwarding: Forwarding) -> bool:
        """Await what is done for a request, and tell the client and the trail when it could not be."""
        self.is_asking = True
        try:
            return await forwarding
        except Refusal as refusal:
            trail.refused(refusal)
            await refuse(stream, refusal, self.services.limits, request)
            return keeps(refusal, request)
        except (Truncated, StreamBroken) as problem:
            cut = "the upstream broke off" if isinstance(problem, Truncated) else "the client went away"
            trail.forwarded(cut)
            stream.abort()
            return False
        except asyncio.CancelledError:
            self._end_cancelled(stream, trail)
            raise
        finally:
            self.current = self.exchange = None
            self.is_asking = False

    async def _exchange(
        self, stream: Stream, request: Request, passage: Passage, trail: Trail, begun: Lease | None, share: Share
    ) -> bool:
        """Forward a judged request and its answer; return whether the connection goes on. See Exchange."""
        services = self.services
        shared = (services.pool, services.limits, self.repeats, services.h2.captures)
        self.exchange = exchange = Exchange(stream, request, passage, trail, *shared, begun=begun, share=share)
        self.current = passage
        stream.on_gone(partial(_cancel, asyncio.current_task()))
        try:
            is_kept = await over_either(exchange, services.h2.upstreams)
        finally:
            stream.on_gone(None)
        if not exchange.is_upload_done:
            await linger(stream, services.limits)
        return is_kept

    async def _identify(self, stream: Stream, request: Request, trail: Trail) -> LiveRun:
        """Return whose request this is. Raises Refusal, late for a peer that has shown many wrong tokens."""
        if self.run_id:
            return self.run()
        values = request.fields.get("proxy-authorization", ())
        run = self.services.admission.by_token(values[0]) if len(values) == 1 else None
        if run is None or (self.only and run.context.run_id != self.only):
            refusal = unidentified()
            trail.ask(request.method, "" if request.method == "CONNECT" else request.target)
            self.challenge.make(stream.peer, self.only, is_wrong=bool(values))
            if values and self.services.failures.is_spent_by(stream.peer):
                trail.is_done = True  # what was recorded so far tells enough, and a flood must not fill a disk
                await asyncio.sleep(self.services.limits.guess_delay_s)
                refusal.keeps = False
            raise refusal
        self.challenge.meet()
        trail.run_id = run.context.run_id
        self.on_identified(trail.run_id)
        self.serving = trail.run_id
        return run

    def _judged(self, arrival: Arrival, run: LiveRun, request: Request) -> tuple[Passage, Trail]:
        """Take a request through every decision, for a relay. Raises Refusal; nothing is recorded then."""
        trail = self.trail(arrival.via, "", arrival.bound)
        return self.repeats.judge(run, arrival, request, trail), trail

    def run(self) -> LiveRun:
        """Return the run as it is now: it may have been replaced since the connection began."""
        if (run := self.services.admission.by_id(self.run_id)) is None:
            raise closed()
        return run

    def trail(self, via: str, method: str = "", authority: Authority | None = None) -> Trail:
        """Begin a record."""
        trail = Trail(self.services.emit, self.run_id, via, method)
        if authority is not None:
            trail.aim(authority)
        return trail

    def _end_cancelled(self, stream: Stream, trail: Trail) -> None:
        reason = "the client went away" if stream.is_over else self.ending
        (trail.forwarded if trail.status else trail.failed)(reason)


def _cancel(task: asyncio.Task[None] | None) -> None:
    """Stop what is done for a client that is gone."""
    if task is not None:
        task.cancel()
