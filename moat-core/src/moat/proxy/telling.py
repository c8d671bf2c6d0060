"""How a judged request is put to the upstream, and its answer to the client: heads as bytes, framing decided. No I/O.

The client gets a body whose end it can tell from a break, where its HTTP version has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moat.net.route import ProxyRoute
from moat.proxy.flow import Passage
from moat.proxy.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    Framing,
    Request,
    Response,
    end_to_end,
    render_request,
    render_response,
)


@dataclass(frozen=True, slots=True)
class Told:
    """How a client is told of an answer: the head's bytes, and how the body is framed."""

    head: bytes = field(repr=False)
    framing: Framing


def head_up(passage: Passage, request: Request, proxy: ProxyRoute | None) -> bytes:
    """Return the request's head as it leaves. proxy: the one that wants it in absolute form."""
    head, framing = passage.head, request.framing
    target = head.target if proxy is None else f"http://{passage.authority}{head.target}"
    headers = [("Host", str(passage.authority)), *head.headers.items]
    if framing.kind == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    elif framing.kind == "length":
        headers.append(("Content-Length", str(framing.length)))
    if upgrade := request.upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", upgrade)]
    if proxy is not None:
        headers += proxy.fields
    return render_request(head.method, target, headers)


def told(response: Response, version: str, *, may_keep: bool) -> Told:
    """Return how a client of this HTTP version is told of response. may_keep: whether its connection may go on."""
    framing = _framing_down(response, version)
    return Told(_head_down(response, framing, keeps=may_keep and framing is not UNTIL_CLOSE), framing)


def _framing_down(response: Response, version: str) -> Framing:
    if response.framing.kind in ("none", "length"):
        return response.framing
    return CHUNKED if version == "1.1" else UNTIL_CLOSE


def _head_down(response: Response, framing: Framing, *, keeps: bool) -> bytes:
    # Alt-Svc would send the client to HTTP/3, which has no way out of a run.
    headers = end_to_end(response.head.headers, response.fields, "alt-svc")
    if framing is CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    if not keeps:
        headers.append(("Connection", "close"))
    return render_response(response.head.status, response.head.reason, headers)
