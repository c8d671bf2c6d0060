"""TLS contexts for endpoints: an authority of their own, a certificate to show. Keys are loaded from memory.

A context is for one Upstream value: another certificate is another value, and never meets the connections of the first.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from moat.api.endpoints import Upstream
from moat.proxy.refusal import unreachable


def context_for(upstream: Upstream, roots: str, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """Return the client context for an endpoint. roots: PEM trusted besides the system's, where upstream names none.

    Raises Refusal for certificates that cannot be used.
    """
    try:
        context = ssl.create_default_context(cadata=upstream.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if roots and not upstream.ca:
            context.load_verify_locations(cadata=roots)
        if upstream.client_certificate:
            load_pem(context, upstream.client_certificate.encode())
    except (ssl.SSLError, ValueError):
        raise unreachable("the certificates of this endpoint cannot be used", "endpoint") from None
    return context


def load_pem(context: ssl.SSLContext, pem: bytes) -> None:
    """Load chain and key from memory: load_cert_chain takes only paths, and the key must not touch a disk."""
    descriptor = os.memfd_create("moat-pem", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: b"")
