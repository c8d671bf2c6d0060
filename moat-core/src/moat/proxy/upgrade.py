"""Which change of protocol a request may ask for, and whether a 101 is the change that was asked for. No I/O.

    client ─ Upgrade: h2c, websocket ─▶ offered() ─▶ "websocket" ─▶ upstream ─ 101 ─▶ check_switched() ─▶ a tunnel

After a 101 nothing is judged any more, so what changes to HTTP again (h2c, TLS) is never offered on: every later
request would go unread. A server may ignore Upgrade (RFC 9110 §7.8), and so do we: the request is then like any other,
and what its client sends behind it is read as the next request. Protocols that nobody here knows are bytes: they pass
only where nothing is decided by request.
"""

from __future__ import annotations

import re

from moat.proxy.http1 import NO_BODY, Framing, Malformed, Request, Response, listed
from moat.proxy.refusal import Refusal

# One exchange each, in frames that are no requests: RFC 6455, and the streams of `kubectl exec` and `port-forward`
# (github.com/moby/spdystream: no server of Kubernetes takes a stream for another request).
KNOWN = ("websocket", "spdy/3.1")
_TOKEN = re.compile(r"([!#$%&'*+\-.^_`|~0-9a-z]+)(?:/[!#$%&'*+\-.^_`|~0-9a-z]+)?")  # RFC 9110 §7.8, lower case
_CARRIES_REQUESTS = frozenset(("h2c", "h2", "h3", "http", "https", "tls", "ssl"))


def offered(request: Request) -> str:
    """Return the one protocol that upstream is asked to change to, as its client spells it; "" for none.

    Of several, one that is known. None in HTTP/1.0 (RFC 9110 §7.8), and none with a body, which a server reads first.
    """
    if "upgrade" not in request.fields or "upgrade" not in listed(request.fields, "connection"):
        return ""
    if request.version != "1.1" or request.framing not in (NO_BODY, Framing("length", 0)):
        return ""
    spelled = (name.strip() for value in request.fields["upgrade"] for name in value.split(","))
    names = [name for name in spelled if _may_be_asked_for(name.lower(), request.method)]
    known = [name for name in names if name.lower() in KNOWN]
    return (known or names or [""])[0]


def check_read(protocol: str, why: str) -> None:
    """Raise a Refusal for a protocol that nobody here knows, where what passes must be read. why: "" where not."""
    if protocol and why and protocol.lower() not in KNOWN:
        what = f"what is upgraded to {protocol} cannot be read, and {why}"
        reason = f"{what}; only websocket and SPDY/3.1 pass here"
        raise Refusal(403, reason, "denied", "upgrade", keeps=True)


def check_switched(protocol: str, response: Response) -> None:
    """Raise Malformed for a 101 that is not the change to protocol, which was asked for; "" where none was."""
    if not protocol:
        raise Malformed("it changed the protocol unasked")
    if listed(response.fields, "upgrade") != (protocol.lower(),):
        raise Malformed("it changed to another protocol than it was asked to")


def _may_be_asked_for(name: str, method: str) -> bool:
    found = _TOKEN.fullmatch(name)
    if found is None or found[1] in _CARRIES_REQUESTS:
        return False
    return name != "websocket" or method == "GET"  # RFC 6455 §4.1
