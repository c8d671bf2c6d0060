"""One client connection, from its first byte to its last: reads requests, has them judged, forwards or refuses them.

    proxy door, token listener ─▶ serve_proxy ─┬─ CONNECT ─▶ serve_tunnel ─▶ TLS, or plain http on port 80 ─┐
                                               └─ http://… ─▶ exchange                                      │
    http, tls doors ─▶ transparent ─▶ serve_bound(authority of the local address) ◀─────────────────────────┘

Every way out of a request ends its Trail once. A client that goes away cancels what is done for it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from moat.api.http import Authority
from moat.proxy.admit import Admission, LiveRun
from moat.proxy.flow import Arrival, Via, judge, judge_connect
from moat.proxy.http1 import Malformed, Request, read_request, take_head
from moat.proxy.record import Emit, Trail
from moat.proxy.refusal import Refusal, closed, malformed, unidentified
from moat.proxy.server.exchange import Exchange, Truncated
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.local import local_answer
from moat.proxy.server.pool import Pool
from moat.proxy.server.stream import PlainStream, Stream, StreamBroken
from moat.proxy.server.tls import TlsStream

IDLE_S = 120.0  # between requests: what nginx and Go give; clients keep theirs shorter
HEAD_S = 30.0  # from a head's first byte to its last: a slow-loris is cut, a slow line is not
HANDSHAKE_S = 15.0  # from a tunnel's beginning to its end of handshake; clients that wait for a banner are told then
LINGER_S = 2.0  # reading on after a refusal, so that a client in the middle of its body can read the answer
LINGER_BYTES = 1_048_576

_TLS_HANDSHAKE = 0x16  # RFC 8446 §5.1: the first byte of a ClientHello's record
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(slots=True)
class Services:
    """What connections share. Replaced whole when the daemon configures anew."""

    admission: Admission
    leaves: Leaves
    pool: Pool
    emit: Emit


@dataclass(slots=True)
class Connection:
    """One connection of a client.

    run_id: of its door, or of the token its CONNECT came with; "" while every request brings its own token.
    only: the one run whose token counts here; "" for any. serving: whose request it served last.
    """

    services: Services
    run_id: str
    only: str = ""
    serving: str = ""

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
        inner = TlsStream(stream, self.services.leaves.context(authority.host))
        problem = await _handshake(inner)
        if problem:
            self._trail(via, "CONNECT" if via == "connect" else "", authority).failed(problem)
            return stream.close()
        return await self.serve_bound(inner, Arrival(via, authority))

    async def serve_bound(self, stream: Stream, arrival: Arrival) -> None:
        """Serve the requests of a connection that is for one authority."""
        while (request := await self._next(stream, arrival)) is not None:
            if not await self._serve(stream, arrival, request):
                break
        stream.close()

    async def _next(self, stream: Stream, arrival: Arrival) -> Request | None:
        """Return the next request, or None when there is none: end, silence, or a head that was refused."""
        try:
            if not stream.buffer:
                async with asyncio.timeout(IDLE_S):
                    if not await stream.more():
                        return None
            async with asyncio.timeout(HEAD_S):
                while (text := take_head(stream.buffer)) is None:
                    if not await stream.more():
                        return None
            return read_request(text)
        except (TimeoutError, StreamBroken):
            return None
        except Malformed as problem:
            refusal = malformed(str(problem))
            self._trail(arrival.via, "", arrival.bound).refused(refusal)
            await _answer(stream, refusal)
            return None

    async def _connect(self, stream: PlainStream, request: Request) -> Authority | None:
        trail = self._trail("connect")
        try:
            run = self._identify(request, trail)
            authority = judge_connect(run, request, trail)
        except Refusal as refusal:
            trail.refused(refusal)
            await _answer(stream, refusal, request)
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
            run = self._identify(request, trail) if arrival.bound is None else self._run()
            if arrival.bound is None and (answer := local_answer(run, request)):
                stream.write(answer)
                return False
            passage = judge(run, arrival, request, trail)
            exchange = Exchange(stream, request, passage, trail, self.services.pool)
            with _cancelled_with(stream, trail):
                keeps = await exchange.run()
            if not exchange.is_upload_done:
                await _linger(stream)
            return keeps
        except Refusal as refusal:
            trail.refused(refusal)
            await _answer(stream, refusal, request)
            return _keeps(refusal, request)
        except (Truncated, StreamBroken) as problem:
            cut = "the upstream broke off" if isinstance(problem, Truncated) else "the client went away"
            trail.forwarded(cut)
            stream.abort()
            return False

    def _identify(self, request: Request, trail: Trail) -> LiveRun:
        """Return whose request this is. Raises Refusal."""
        if self.run_id:
            return self._run()
        values = request.fields.get("proxy-authorization", ())
        run = self.services.admission.by_token(values[0]) if len(values) == 1 else None
        if run is None or (self.only and run.context.run_id != self.only):
            trail.ask(request.method, "" if request.method == "CONNECT" else request.target)
            raise unidentified()
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

    async def _first_byte(self, stream: PlainStream) -> int | None:
        with suppress(TimeoutError, StreamBroken):
            async with asyncio.timeout(HANDSHAKE_S):
                if stream.buffer or await stream.more():
                    return stream.buffer[0]
        return None


async def _handshake(stream: TlsStream) -> str:
    """Shake hands; return what went wrong, "" for nothing."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await stream.handshake()
    except TimeoutError:
        return "the client did not finish the TLS handshake"
    except StreamBroken:
        return "the client broke off the TLS handshake"
    except ssl.SSLError as error:
        return _tls_problem(error)
    return ""


def _tls_problem(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if "CALLBACK_FAILED" in reason or "CLIENTHELLO_TLSEXT" in reason:
        return "the client's SNI names another host than its connection"
    if "ALERT" in reason:  # a pinned certificate, or a trust store without our CA
        return f"the client rejected our certificate ({reason.lower().replace('_', ' ')})"
    return f"the client's TLS was not understood ({reason.lower().replace('_', ' ') or 'no reason given'})"


@contextmanager
def _cancelled_with(stream: Stream, trail: Trail) -> Iterator[None]:
    """Cancel the current task when the client goes away, and end the trail of whatever is cancelled."""
    task = asyncio.current_task()
    stream.on_gone(None if task is None else lambda: _cancel(task))
    try:
        yield
    except asyncio.CancelledError:
        reason = "the client went away" if stream.is_over else "the run was stopped"
        if trail.status:
            trail.forwarded(reason)
        else:
            trail.failed(reason)
        raise
    finally:
        stream.on_gone(None)


def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()


def _keeps(refusal: Refusal, request: Request) -> bool:
    """Whether the connection goes on after a refusal: never with an unread body on it (RFC 9112 §9.3)."""
    return refusal.keeps and request.keeps_alive and request.framing.kind == "none"


async def _answer(stream: Stream, refusal: Refusal, request: Request | None = None) -> None:
    """Write a refusal."""
    keeps = request is not None and _keeps(refusal, request)
    refusal.keeps = keeps
    stream.write(refusal.render("GET" if request is None else request.method))
    if not keeps and (request is None or request.framing.kind != "none"):
        await _linger(stream)


async def _linger(stream: Stream) -> None:
    """Read on for a moment: closing on unread bytes resets the connection and loses the answer (RFC 9112 §9.6)."""
    with suppress(TimeoutError, StreamBroken):
        async with asyncio.timeout(LINGER_S):
            seen = 0
            while seen < LINGER_BYTES and await stream.more():
                seen += len(stream.buffer)
                stream.buffer.clear()
