"""How a judged request is put to the upstream, and its answer to the client: heads as bytes, framing decided. No I/O.

The client gets a body whose end it can tell from a break, where its HTTP version has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from moat.api.http import Headers, ResponseHead
from moat.net.route import ProxyRoute
from moat.proxy.answering import Answering
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

_NEVER_TOLD = ("alt-svc",)  # it would send the client to HTTP/3, which has no way out of a run


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
    if passage.upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", passage.upgrade)]
    if proxy is not None:
        headers += proxy.fields
    return render_request(head.method, target, headers)


def told(response: Response, version: str, *, may_keep: bool) -> Told:
    """Return how a client of this HTTP version is told of response. may_keep: whether its connection may go on."""
    framing = _framing_down(response, version)
    return Told(_head_down(response, framing, keeps=may_keep and framing is not UNTIL_CLOSE), framing)


def told_early(response: Response, answering: Answering | None, more: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return a 1xx head as the client gets it. more: fields of its connection, which may hold the upstream's words."""
    head = early(response, answering, more)
    return render_response(head.status, head.reason, head.headers.items)


def early(response: Response, answering: Answering | None, more: Iterable[tuple[str, str]] = ()) -> ResponseHead:
    """Return a 1xx head, of any version of HTTP, as the client gets it."""
    fields = (*end_to_end(response.head.headers, response.fields, *_NEVER_TOLD), *more)
    head = replace(response.head, headers=Headers(fields))
    return head if answering is None else answering.head(head, has_body=False)


def _framing_down(response: Response, version: str) -> Framing:
    if response.framing.kind in ("none", "length"):
        return response.framing
    return CHUNKED if version == "1.1" else UNTIL_CLOSE


def _head_down(response: Response, framing: Framing, *, keeps: bool) -> bytes:
    headers = end_to_end(response.head.headers, response.fields, *_NEVER_TOLD)
    if framing is CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    if not keeps:
        headers.append(("Connection", "close"))
    return render_response(response.head.status, response.head.reason, headers)
