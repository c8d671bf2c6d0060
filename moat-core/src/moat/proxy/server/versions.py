"""Which upstreams have only one version of HTTP: found out by dialling, remembered for a while. No I/O.

    offered http/1.1 ─▶ agreed ─▶ HTTP/1.1, as most
                     ─▶ no agreement ─▶ doubtful: offer both ─┬─ h2 agreed ──▶ OnlyHttp2, remembered
                     ─▶ alert: no protocol in common ─────────┘  none again ─▶ HTTP/1.1 without ALPN, remembered

Nothing of a request is sent before this is settled, so that nothing has to be sent twice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeAlias

from moat.api.endpoints import Upstream
from moat.api.http import Authority
from moat.proxy.refusal import Refusal

MAX_KNOWN = 512
KNOWN_S = 600.0  # a server may learn another version

Version: TypeAlias = Literal["http/1.1", "h2"]
HTTP1: Version = "http/1.1"
HTTP2: Version = "h2"
PROTOCOLS = (HTTP2, HTTP1)
Peer: TypeAlias = tuple[Authority, Upstream | None]


class OnlyHttp2(Refusal):
    """The upstream does not speak HTTP/1.1. Whoever can speak HTTP/2 to it catches this; else it is a 502."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(502, f"{authority} speaks only HTTP/2", "failed", "http-version", keeps=True)


class Versions:
    """What is known of upstreams that have one version only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[Peer, tuple[float, Version]] = OrderedDict()

    def only(self, authority: Authority, upstream: Upstream | None = None) -> Version | None:
        """Return the only version that an upstream has, None when it may have both."""
        if upstream is not None and len(said := [each for each in PROTOCOLS if each in upstream.alpn]) == 1:
            return said[0]
        since, version = self._known.get((authority, upstream), (0.0, None))
        return version if version is not None and self._clock() - since < KNOWN_S else None

    def remember(self, version: Version, authority: Authority, upstream: Upstream | None = None) -> None:
        """Remember that an upstream has only this version."""
        peer = authority, upstream
        self._known[peer] = self._clock(), version
        self._known.move_to_end(peer)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def check(self, authority: Authority, upstream: Upstream | None = None) -> None:
        """Raise OnlyHttp2 for an upstream that is known to be so."""
        if self.only(authority, upstream) == HTTP2:
            raise OnlyHttp2(authority)
