"""Dials upstreams with what each is to be offered: certificates of its own, protocols, a session to resume.

    (authority, endpoint's Upstream, protocols) ─▶ context, made once ─▶ dial, resuming ─▶ remember, for the next

Connections of HTTP/1.1 clients are the pool's; this is for HTTP/2, and for endpoints that stream.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import replace
from typing import TypeAlias

from moat.api.endpoints import Upstream
from moat.api.http import Authority
from moat.proxy.refusal import unreachable
from moat.proxy.server.stream import Stream
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.trust import context_for
from moat.proxy.server.upstream import DialSettings, client_context, dial

MAX_SESSIONS = 512
MAX_CONTEXTS = 64  # those of endpoints are about 1 MiB each, with the system's roots

Protocols: TypeAlias = tuple[str, ...]
Offer: TypeAlias = tuple[Authority, Upstream | None, Protocols]


class Dialler:
    """roots: as in Configure, for contexts of its own."""

    def __init__(self, settings: DialSettings, roots: str = "") -> None:
        self._settings = settings
        self._roots = roots
        self._contexts: OrderedDict[tuple[Upstream | None, Protocols], ssl.SSLContext] = OrderedDict()
        self._sessions: OrderedDict[Offer, ssl.SSLSession] = OrderedDict()  # keys and who was verified, no request's

    async def dial(self, authority: Authority, upstream: Upstream | None, protocols: Protocols) -> Stream:
        """Return a stream to authority that was offered protocols. Raises Refusal.

        In clear there is no tunnel through a proxy, which reads requests of HTTP/1.1 and nothing else: those are the
        pool's, and what is sent over this stream would be the proxy's to make sense of.
        """
        route = self._settings.proxy_for(authority) if authority.scheme == "http" else None
        if route is not None:
            way = f"the proxy {route}, which takes in clear requests of HTTP/1.1 only; see upstream.no_proxy"
            raise unreachable(f"{authority} is reached through {way}", "proxy")
        session = self._sessions.get((authority, upstream, protocols))
        if upstream is not None and upstream.is_here:
            return await dial(self._settings, authority, is_here=True)
        return await dial(self._settings, authority, session, self._context(upstream, protocols))

    def remember(self, authority: Authority, upstream: Upstream | None, protocols: Protocols, stream: Stream) -> None:
        """Remember the session of a stream that has had bytes from its peer: TLS 1.3's tickets come with them."""
        if not isinstance(stream, TlsStream) or (session := stream.session) is None:
            return
        offer = (authority, upstream, protocols)
        self._sessions[offer] = session
        self._sessions.move_to_end(offer)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _context(self, upstream: Upstream | None, protocols: Protocols) -> ssl.SSLContext:
        """Return the context for an offer. Raises Refusal for certificates that cannot be used."""
        own = upstream if upstream is not None and (upstream.ca or upstream.client_certificate) else None
        key = own and replace(own, address="", alpn=()), protocols
        if (context := self._contexts.get(key)) is None:  # 20 ms, so not before somebody needs it
            roots = self._roots
            context = client_context(roots, protocols) if own is None else context_for(own, roots, protocols)
            self._contexts[key] = context
            if len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return context
