"""Upstream connections that are kept for the next request of the same run, authority and credential.

Never shared between runs: what one run's connection has become upstream (a session, a rate limit) is not another's.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from moat.api.http import Authority
from moat.proxy.server.stream import Stream
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import DialSettings, dial

IDLE_S = 30.0  # shorter than most servers keep theirs; a shorter one is seen by its FIN
MAX_IDLE_PER_KEY = 64  # what parallel installers open at once; fewer means a handshake for most of their requests
MAX_IDLE = 256
MAX_SESSIONS = 512


class Key(NamedTuple):
    """Who may share a connection."""

    run_id: str
    authority: Authority
    grants: tuple[str, ...]


@dataclass(slots=True)
class Lease:
    """One connection in use.

    is_reused: it has carried a request before, so the upstream may just have closed it. is_kept: given back.
    """

    key: Key
    stream: Stream
    is_reused: bool = False
    is_kept: bool = False


class Pool:
    """The worker's upstream connections."""

    def __init__(self, settings: DialSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._idle: dict[Key, list[tuple[float, Stream]]] = {}
        self._sessions: OrderedDict[Key, ssl.SSLSession] = OrderedDict()
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def lease(self, key: Key, *, fresh: bool = False) -> Lease:
        """Return a connection for key: an idle one unless fresh, else a new one. Raises Refusal."""
        stream = None if fresh else self._pop(key)
        if stream is not None:
            return Lease(key, stream, is_reused=True)
        return Lease(key, await dial(self._settings, key.authority, self._sessions.get(key)))

    def give_back(self, lease: Lease) -> None:
        """Keep a connection whose last exchange ended cleanly."""
        lease.is_kept = True
        self._remember_session(lease)
        waiting = self._idle.get(lease.key, [])
        is_full = self._is_closed or len(waiting) >= MAX_IDLE_PER_KEY or self._count >= MAX_IDLE
        if is_full or lease.stream.has_unread() or lease.stream.is_over:
            lease.stream.close()
            return
        waiting.append((self._clock(), lease.stream))
        self._idle[lease.key] = waiting
        self._count += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._sweep_out)

    def drop_run(self, run_id: str) -> None:
        """Close everything kept for a run."""
        for key in [key for key in self._idle if key.run_id == run_id]:
            self._close_all(key)
        for key in [key for key in self._sessions if key.run_id == run_id]:
            del self._sessions[key]

    def close(self) -> None:
        """Close everything, also what is given back later."""
        self._is_closed = True
        for key in list(self._idle):
            self._close_all(key)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _pop(self, key: Key) -> Stream | None:
        waiting = self._idle.get(key)
        while waiting:
            since, stream = waiting.pop()
            self._count -= 1
            # What came unasked would be taken for the answer to the next request. Asked first: it may find the end.
            is_usable = not stream.has_unread() and not stream.is_over and self._clock() - since < IDLE_S
            if is_usable and not _has_news(stream):  # the loop may not have looked yet
                return stream
            stream.close()
        return None

    def _remember_session(self, lease: Lease) -> None:
        stream = lease.stream
        if not isinstance(stream, TlsStream) or lease.is_reused or stream.was_resumed:
            return  # reading a session costs as much as it saves later, so once per full handshake
        if (session := stream.session) is not None:
            self._sessions[lease.key] = session
            self._sessions.move_to_end(lease.key)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def _sweep_out(self) -> None:
        self._sweep = None
        oldest = self._clock() - IDLE_S
        for key, waiting in list(self._idle.items()):
            kept = [(since, stream) for since, stream in waiting if since > oldest and not stream.is_over]
            for entry in waiting:
                if entry not in kept:
                    entry[1].close()
            self._count -= len(waiting) - len(kept)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._sweep_out)

    def _close_all(self, key: Key) -> None:
        for _, stream in self._idle.pop(key):
            stream.close()
            self._count -= 1


def _has_news(stream: Stream) -> bool:
    """Whether the kernel holds something of the peer's that the loop has not read: data, an end, a reset."""
    descriptor = stream.fileno()
    if descriptor < 0:
        return True
    asked = select.poll()
    asked.register(descriptor, select.POLLIN | select.POLLRDHUP)
    return bool(asked.poll(0))
