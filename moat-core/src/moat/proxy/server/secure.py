"""The upstream's TLS: a verified handshake, or one honest word for why there is none. Sends nothing but the handshake.

certificate   OpenSSL's own reason: expired, self-signed, another name       tls-version   older than TLS 1.2
closed        the connection ended in the handshake                          timeout       it did not end in time
http-version  no version of HTTP that we offered   tls      anything else that is no TLS that we speak
"""

from __future__ import annotations

import asyncio
import ssl

from moat.api.http import Authority
from moat.proxy.refusal import Refusal, late, unreachable
from moat.proxy.server.stream import PlainStream, StreamBroken
from moat.proxy.server.tls import TlsStream

HANDSHAKE_S = 10.0  # what browsers and Go's client give it

# Ours when the server chose an old version, the server's alert when it knows nothing newer.
_OLD = frozenset(("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"))

_NO_PROTOCOL = "no application protocol"  # RFC 7301 §3.2; Python before 3.12 has no name for this alert


async def secure(
    context: ssl.SSLContext,
    plain: PlainStream,
    authority: Authority,
    session: ssl.SSLSession | None = None,
    *,
    limit_s: float = HANDSHAKE_S,
) -> TlsStream:
    """Return plain inside TLS, the peer verified to be authority's host. session: one of context, to resume.

    Raises Refusal; plain is then the caller's to close.
    """
    stream = TlsStream(plain, context, server_hostname=authority.host)
    if session is not None:
        stream.offer(session)
    try:
        async with asyncio.timeout(limit_s):
            await stream.handshake()
    except TimeoutError:
        raise late(f"{authority} did not finish the TLS handshake in {limit_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        reason = f"{authority}: its certificate is not trusted ({error.verify_message})"
        raise unreachable(reason, "certificate") from None
    except ssl.SSLError as error:
        raise _misunderstood(authority, error) from None
    except StreamBroken:
        raise unreachable(f"{authority} closed the connection in the TLS handshake", "closed") from None
    return stream


def _misunderstood(authority: Authority, error: ssl.SSLError) -> Refusal:
    reason = error.reason or ""
    if reason in _OLD:
        return unreachable(f"{authority} speaks no TLS newer than 1.1", "tls-version")
    if _NO_PROTOCOL in (reason or str(error)).lower().replace("_", " "):
        return unreachable(f"{authority} speaks no version of HTTP that it was offered", "http-version")
    told = reason.lower().replace("_", " ") or "no reason given"
    return unreachable(f"{authority}: the TLS handshake failed ({told})", "tls")
