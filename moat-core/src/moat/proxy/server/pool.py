"""Upstream connections that are kept for the next request of the same run, authority and credential.

    lease ─▶ kept and quiet? ─▶ used again             give_back ─▶ clean? ─▶ kept, 30 s at most
                no ─▶ dial, resuming the TLS of an earlier one to that authority

A connection is never shared between runs: what one run's has become upstream (a login, a rate limit) is not another's.
A TLS session is: it holds keys and whom they were verified for, nothing of a request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from moat.api.endpoints import Upstream
from moat.api.http import Authority
from moat.net.route import ProxyRoute
from moat.proxy.refusal import Refusal
from moat.proxy.server.dialler import Dialler
from moat.proxy.server.stream import Stream, let_go
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.trust import context_for
from moat.proxy.server.upstream import DialSettings, dial
from moat.proxy.server.versions import HTTP1, HTTP2, PROTOCOLS, OnlyHttp2, Versions

IDLE_S = 30.0  # shorter than most servers keep theirs; a shorter one is seen by its FIN
MAX_IDLE_PER_KEY = 64  # what parallel installers open at once; fewer means a handshake for most of their requests
MAX_IDLE = 256  # of all runs; the one unused for longest makes room
MAX_SESSIONS = 512
MAX_CONTEXTS = 128  # of endpoints


Peer: TypeAlias = tuple[Authority, Upstream | None]


@dataclass(frozen=True, slots=True)
class Key:
    """Who may share a connection. upstream: of an endpoint, with the certificates that are its own."""

    run_id: str
    authority: Authority
    grants: tuple[str, ...]
    upstream: Upstream | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.run_id, self.authority, self.grants, self.upstream)))

    def __hash__(self) -> int:
        return self._hash  # asked for at each use of a connection


@dataclass(slots=True)
class Lease:
    """One connection in use.

    is_reused: it has carried a request before, so the upstream may just have closed it. is_kept: given back.
    proxy: the proxy that sees the request, and wants it in absolute form; None for a connection to the upstream itself.
    """

    key: Key
    stream: Stream
    is_reused: bool = False
    is_kept: bool = False
    proxy: ProxyRoute | None = None


class Pool:
    """The worker's upstream connections of HTTP/1.1. dialler, versions: shared with those of HTTP/2."""

    def __init__(self, settings: DialSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.dialler = Dialler(settings, settings.roots)
        self.versions = Versions(clock)
        self._settings = settings
        self._clock = clock
        self._idle: dict[Key, list[tuple[float, Stream]]] = {}
        self._sessions: OrderedDict[Peer, ssl.SSLSession] = OrderedDict()  # those of one Peer are of one context
        self._contexts: OrderedDict[Upstream, ssl.SSLContext] = OrderedDict()
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def lease(self, key: Key, *, fresh: bool = False) -> Lease:
        """Return a connection for key: an idle one unless fresh, else a new one. Raises Refusal, also OnlyHttp2."""
        proxy = self._settings.proxy_for(key.authority) if key.authority.scheme == "http" else None
        stream = None if fresh else self._pop(key)
        if stream is not None:
            return Lease(key, stream, is_reused=True, proxy=proxy)
        return Lease(key, await self._dial(key), proxy=proxy)

    def take(self, key: Key) -> Lease | None:
        """Return an idle connection for key, None when there is none or a proxy of the installation's is on the way."""
        if key.authority.scheme == "http" and self._settings.proxy_for(key.authority) is not None:
            return None
        stream = self._pop(key)
        return None if stream is None else Lease(key, stream, is_reused=True)

    def give_back(self, lease: Lease) -> None:
        """Keep a connection whose last exchange ended cleanly."""
        lease.is_kept = True
        self._remember_session(lease)
        waiting = self._idle.get(lease.key, [])
        is_full = self._is_closed or len(waiting) >= MAX_IDLE_PER_KEY
        is_behind = lease.stream.is_full  # answered, but took little of what was asked: that may not pile up
        if is_full or is_behind or lease.stream.has_unread() or lease.stream.is_over:
            let_go(lease.stream)
            return
        if self._count >= MAX_IDLE:
            self._make_room()
        waiting.append((self._clock(), lease.stream))
        self._idle[lease.key] = waiting
        self._count += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._sweep_out)

    def drop_run(self, run_id: str) -> None:
        """Close everything kept for a run."""
        for key in [key for key in self._idle if key.run_id == run_id]:
            self._close_all(key)

    def close(self) -> None:
        """Close everything, also what is given back later."""
        self._is_closed = True
        for key in list(self._idle):
            self._close_all(key)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def _dial(self, key: Key) -> Stream:
        peer = (key.authority, key.upstream)
        self.versions.check(*peer)
        try:
            session, context = self._sessions.get(peer), self._context(key.upstream)
            is_here = key.upstream is not None and key.upstream.is_here
            stream = await dial(self._settings, key.authority, session, context, is_here=is_here)
        except Refusal as refusal:
            if refusal.kind != "http-version":
                raise
            self.versions.remember(HTTP2, *peer)
            raise OnlyHttp2(key.authority) from None
        is_settled = not isinstance(stream, TlsStream) or stream.protocol or self.versions.only(*peer) == HTTP1
        return stream if is_settled else await self._settled(key, stream)

    async def _settled(self, key: Key, stream: Stream) -> Stream:
        """Return stream, to a peer that agreed on no version, once it is clear that it has none but HTTP/1.1."""
        try:
            other = await self.dialler.dial(key.authority, key.upstream, PROTOCOLS)
        except Refusal:
            return stream  # nothing is known now; the next connection asks again
        except BaseException:
            stream.abort()
            raise
        other.close()
        is_without = not isinstance(other, TlsStream) or other.protocol != HTTP2
        self.versions.remember(HTTP1 if is_without else HTTP2, key.authority, key.upstream)
        if is_without:
            return stream
        stream.abort()
        raise OnlyHttp2(key.authority)

    def _pop(self, key: Key) -> Stream | None:
        waiting = self._idle.get(key)
        while waiting:
            since, stream = waiting.pop()
            self._count -= 1
            idle_s = self._clock() - since
            # What came unasked would be taken for the answer to the next request. Asked first: it may find the end.
            is_usable = not stream.has_unread() and not stream.is_over and idle_s < IDLE_S
            if is_usable and not stream.has_news():  # every time: the loop may not have looked yet
                return stream
            let_go(stream)
        return None

    def _remember_session(self, lease: Lease) -> None:
        stream = lease.stream
        if not isinstance(stream, TlsStream) or lease.is_reused or stream.was_resumed:
            return  # reading a session costs as much as it saves later, so once per full handshake
        if (session := stream.session) is not None:
            peer = (lease.key.authority, lease.key.upstream)
            self._sessions[peer] = session
            self._sessions.move_to_end(peer)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def _context(self, upstream: Upstream | None) -> ssl.SSLContext | None:
        """Return an endpoint's own context; None where the installation's will do. Raises Refusal."""
        if upstream is None or not (upstream.ca or upstream.client_certificate):
            return None
        if (context := self._contexts.get(upstream)) is None:
            context = self._contexts[upstream] = context_for(upstream, self._settings.roots)
            if len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def _make_room(self) -> None:
        """Close the connection that has waited longest, whoever's it is."""
        key = min((key for key, waiting in self._idle.items() if waiting), key=lambda key: self._idle[key][0][0])
        let_go(self._idle[key].pop(0)[1])
        self._count -= 1

    def _sweep_out(self) -> None:
        self._sweep = None
        oldest = self._clock() - IDLE_S
        for key, waiting in list(self._idle.items()):
            kept = [(since, stream) for since, stream in waiting if since > oldest and not stream.is_over]
            for entry in waiting:
                if entry not in kept:
                    let_go(entry[1])
            self._count -= len(waiting) - len(kept)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._sweep_out)

    def _close_all(self, key: Key) -> None:
        for _, stream in self._idle.pop(key):
            let_go(stream)
            self._count -= 1
