"""Upstreams of HTTP/2 clients: connections that are HTTP/2 where the upstream has it, shared by the streams of a run.

    reach ─▶ a link with room ─▶ OverHttp2        none: dial, offering h2 and http/1.1 ─┬─ h2 ───────▶ a new link
             known to have no HTTP/2 ─▶ OverHttp1 over the pool                         └─ http/1.1 ─▶ the pool

As in the pool, nothing is shared between runs or credentials. Clients of HTTP/1.1 never come here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from moat.api.http import Authority
from moat.proxy.http2 import Http2
from moat.proxy.server.h2_far import Far, OverHttp1, OverHttp2
from moat.proxy.server.h2_link import Link
from moat.proxy.server.pool import IDLE_S, Key, Lease, Pool
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import DialSettings, client_context, dial

MAX_KNOWN = 512  # authorities without HTTP/2 that are remembered
KNOWN_S = 600.0  # a server may learn HTTP/2
PROTOCOLS = ("h2", "http/1.1")

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Shared:
    """A link and its place in time. idle_since: of the clock; uses: streams so far."""

    link: Link
    idle_since: float
    uses: int = 0


@dataclass(slots=True)
class _Site:
    """What is known of one key. dialling: held by whoever dials, so that a hundred streams make one connection.

    waiting: who dials or waits for it.
    """

    shared: list[_Shared] = field(default_factory=list)
    dialling: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Upstreams:
    """The worker's upstream connections that may be HTTP/2. roots: as in Configure, for a TLS context of its own."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        pool: Pool,
        settings: DialSettings,
        roots: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._pool = pool
        self._settings = settings
        self._roots = roots
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._sites: defaultdict[Key, _Site] = defaultdict(_Site)
        self._without: OrderedDict[Authority, float] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def reach(self, key: Key, *, fresh: bool = False) -> Far:
        """Return an upstream for one request. fresh: not over a connection that is there. Raises Refusal."""
        if key.authority.scheme != "https" or self._is_without(key.authority):
            return OverHttp1(await self._pool.lease(key, fresh=fresh), self._pool)
        site = self._sites[key]
        if not fresh and (far := self._over(site)) is not None:
            return far
        site.waiting += 1
        try:
            async with site.dialling:
                if not fresh and (far := self._over(site)) is not None:  # somebody else has dialled meanwhile
                    return far
                if not self._is_without(key.authority):
                    return await self._dial(key, site)
        finally:
            site.waiting -= 1
            self._tidy(key, site)
        return OverHttp1(await self._pool.lease(key, fresh=fresh), self._pool)

    def remember_without(self, authority: Authority) -> None:
        """Remember that authority has no HTTP/2."""
        self._without[authority] = self._clock()
        self._without.move_to_end(authority)
        if len(self._without) > MAX_KNOWN:
            self._without.popitem(last=False)

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

    def _over(self, site: _Site) -> OverHttp2 | None:
        for shared in site.shared:
            link = shared.link
            if not link.is_leaving and not link.stream.is_over and link.wire.has_room_for_streams:
                shared.uses += 1
                return OverHttp2(link, is_reused=shared.uses > 1)
        return None

    async def _dial(self, key: Key, site: _Site) -> Far:
        settings = replace(self._settings, tls=self._tls())
        stream = await dial(settings, key.authority)
        if not isinstance(stream, TlsStream) or stream.protocol != "h2":
            self.remember_without(key.authority)
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
            shared.link.stream.close()
            if shared in site.shared:
                site.shared.remove(shared)
            self._tidy(key, site)

    def _tidy(self, key: Key, site: _Site) -> None:
        if not site.shared and not site.waiting and self._sites.get(key) is site:
            del self._sites[key]

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:  # 20 ms, for the first client of HTTP/2 only
            self._context = client_context(self._roots, PROTOCOLS)
        return self._context

    def _is_without(self, authority: Authority) -> bool:
        since = self._without.get(authority)
        return since is not None and self._clock() - since < KNOWN_S

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
                link.is_leaving = True
                link.wire.goodbye()
                link.flush()
                link.stream.close()
        self._plan_sweep()
