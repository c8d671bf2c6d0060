"""Server-side TLS contexts, one per intercepted host and HTTP version, minted on demand and kept for a while.

Minting and loading cost about a millisecond, so it happens once per host and day, never per connection. A context
accepts its own host as SNI and nothing else: it was made for the name that the connection is authorised for.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec

from moat.net.authority import AuthorityRefused, canonical_host
from moat.proxy.ca import CertificateAuthority, leaf, private_pem
from moat.proxy.server.trust import load_pem

MAX_CONTEXTS = 1024  # about 60 KiB each; a flood of names evicts names, not memory
KEPT_S = 86_400.0  # a day: far below the leaves' week, so none expires in use


class Leaves:
    """The worker's certificates for intercepted hosts. clock: Unix time."""

    def __init__(self, ca: CertificateAuthority, clock: Callable[[], float] = time.time) -> None:
        self._ca = ca
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_pem = private_pem(self._key)
        self._contexts: OrderedDict[tuple[str, bool], tuple[float, ssl.SSLContext]] = OrderedDict()

    def context(self, host: str, *, http2: bool = False) -> ssl.SSLContext:
        """Return the server context for a canonical host. http2: for a client that offers nothing else."""
        now, key = self._clock(), (host, http2)
        made, context = self._contexts.get(key, (now, None))
        if context is not None and now - made < KEPT_S:
            self._contexts.move_to_end(key)
            return context
        context = self._make(host, datetime.fromtimestamp(now, UTC), "h2" if http2 else "http/1.1")
        self._contexts[key] = (now, context)
        self._contexts.move_to_end(key)
        if len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def _make(self, host: str, now: datetime, protocol: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.num_tickets = 0  # saves 15 % of a handshake; clients inside seldom resume
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols([protocol])
        context.sni_callback = _only(host)
        certificate = leaf(self._ca, host, self._key.public_key(), now)
        load_pem(context, certificate.encode() + self._key_pem)
        return context


def _only(host: str) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    def check(_tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        try:
            agrees = name is None or name == host or canonical_host(name) == host
        except AuthorityRefused:
            agrees = False
        return None if agrees else int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)

    return check
