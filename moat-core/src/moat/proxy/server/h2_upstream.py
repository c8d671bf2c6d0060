"""Upstreams of HTTP/2 clients: connections that are HTTP/2 where the upstream has it, shared by the streams of a run.

    reach ─▶ a link with room ─▶ OverHttp2        none: dial, offering h2 and http/1.1 ─┬─ h2 ───────▶ a new link
             known to have no HTTP/2 ─▶ OverHttp1 over the pool                         └─ http/1.1 ─▶ the pool

As in the pool, nothing is shared between runs or credentials. Clients of HTTP/1.1 never come here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from moat.proxy.http2 import Http2
from moat.proxy.server.h2_far import Far, OverHttp1, OverHttp2
from moat.proxy.server.h2_link import Link
from moat.proxy.server.pool import IDLE_S, Key, Lease, Pool
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.versions import HTTP1, HTTP2, PROTOCOLS, OnlyHttp2

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Shared:
    """A link and its place in time. idle_since: of the clock; uses: streams so far; is_remembered: its TLS session."""

    link: Link
    idle_since: float
    uses: int = 0
    is_remembered: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether one more request may go over it."""
        link = self.link
        return not link.is_leaving and not link.stream.is_over and link.wire.has_room_for_streams

    def leave(self) -> None:
        """Say goodbye and close it; nothing hangs on it."""
        link = self.link
        link.is_leaving = True
        if link.stream.untaken():  # it would not hear it either
            return link.stream.abort()
        link.wire.goodbye()
        link.flush()
        return link.stream.close()


@dataclass(slots=True)
class _Site:
    """What is known of one key. dialling: held by whoever dials, so that a hundred streams make one connection.

    waiting: who dials or waits for it.
    """

    shared: list[_Shared] = field(default_factory=list)
    dialling: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Upstreams:
    """The worker's upstream connections that may be HTTP/2."""

    def __init__(self, group: asyncio.TaskGroup, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._pool = pool
        self._clock = clock
        self._sites: defaultdict[Key, _Site] = defaultdict(_Site)
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def reach(self, key: Key, *, fresh: bool = False) -> Far:
        """Return an upstream for one request. fresh: not over a connection that is there. Raises Refusal."""
        if self._is_without(key):
            with suppress(OnlyHttp2):  # it has changed its mind
                return OverHttp1(await self._pool.lease(key, fresh=fresh), self._pool)
        site = self._sites[key]
        if not fresh and (far := self._over(key, site)) is not None:
            return far
        site.waiting += 1
        try:
            async with site.dialling:
                if not fresh and (far := self._over(key, site)) is not None:  # somebody else has dialled meanwhile
                    return far
                if not self._is_without(key):
                    return await self._dial(key, site)
        finally:
            site.waiting -= 1
            self._tidy(key, site)
        return OverHttp1(await self._pool.lease(key, fresh=fresh), self._pool)

    def remember_without(self, key: Key) -> None:
        """Remember that an upstream has no HTTP/2."""
        self._pool.versions.remember(HTTP1, key.authority, key.upstream)

    def drop_run(self, run_id: str) -> None:
        """Close everything of a run."""
        for key in [key for key in self._sites if key.run_id == run_id]:
            for shared in self._sites.pop(key).shared:
                shared.link.stream.abort()

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is idle."""
        self._is_closed = True
        self._sweep_out()

    def abort(self) -> None:
        """Close everything at once."""
        self._is_closed = True
        for site in self._sites.values():
            for shared in site.shared:
                shared.link.stream.abort()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _over(self, key: Key, site: _Site) -> OverHttp2 | None:
        for shared in site.shared:
            if shared.is_usable:
                shared.uses += 1
                self._remember_session(key, shared)
                return OverHttp2(shared.link, is_reused=shared.uses > 1)
        return None

    async def _dial(self, key: Key, site: _Site) -> Far:
        for shared in [each for each in site.shared if not each.link.lanes and not each.is_usable]:
            shared.leave()  # or a server that allows no streams would have a connection more with every request
        stream = await self._pool.dialler.dial(key.authority, key.upstream, self._protocols(key))
        if isinstance(stream, TlsStream) and stream.protocol != HTTP2:  # in clear: prior knowledge (RFC 9113 §3.3)
            self.remember_without(key)
            return OverHttp1(Lease(key, stream), self._pool)
        shared = _Shared(Link(stream, Http2(is_client=True)), self._clock(), 1)
        site.shared.append(shared)
        self._group.create_task(self._run(key, site, shared))
        self._plan_sweep()
        return OverHttp2(shared.link, is_reused=False)

    async def _run(self, key: Key, site: _Site, shared: _Shared) -> None:
        """Read one link to its end; whatever happens stays within it."""
        try:
            await shared.link.run()
        except Exception:
            log.exception("an upstream connection failed", extra={"run_id": key.run_id})
        finally:
            self._remember_session(key, shared)
            shared.link.stream.close()
            if shared in site.shared:
                site.shared.remove(shared)
            self._tidy(key, site)

    def _tidy(self, key: Key, site: _Site) -> None:
        if not site.shared and not site.waiting and self._sites.get(key) is site:
            del self._sites[key]

    def _remember_session(self, key: Key, shared: _Shared) -> None:
        """Remember a link's TLS session once something came over it, and once: reading one costs what it saves."""
        stream = shared.link.stream
        if not shared.is_remembered and isinstance(stream, TlsStream) and not stream.was_resumed:
            shared.is_remembered = True
            self._pool.dialler.remember(key.authority, key.upstream, self._protocols(key), stream)

    def _protocols(self, key: Key) -> tuple[str, ...]:
        return key.upstream.alpn if key.upstream is not None and key.upstream.alpn else PROTOCOLS

    def _is_without(self, key: Key) -> bool:
        """Whether an upstream is not even offered HTTP/2; in clear text, it must have been said that it has it."""
        version = self._pool.versions.only(key.authority, key.upstream)
        return version == HTTP1 or (key.authority.scheme == "http" and version != HTTP2)

    def _plan_sweep(self) -> None:
        if self._sweep is None and any(site.shared for site in self._sites.values()):
            self._sweep = asyncio.get_running_loop().call_later(1 if self._is_closed else IDLE_S / 2, self._sweep_out)

    def _sweep_out(self) -> None:
        """Close what has been idle for long, and what says goodbye once nothing hangs on it."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        now = self._clock()
        for shared in [shared for site in self._sites.values() for shared in site.shared]:
            link = shared.link
            if link.lanes:
                shared.idle_since = now
            elif self._is_closed or link.is_leaving or now - shared.idle_since >= IDLE_S:
                shared.leave()
        self._plan_sweep()
