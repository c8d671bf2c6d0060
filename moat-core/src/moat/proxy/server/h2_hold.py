"""Holds the body of an HTTP/2 client's request for the rules that must see all of it. What `hold` is for HTTP/1.1.

    lane ─ body ─▶ held, at most the rules' limit ─▶ placeholders replaced ─▶ begun, which is sent before what follows

A body that is too large is sent as it came: nothing of it is replaced.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from moat.proxy.flow import Passage
from moat.proxy.holds import Share
from moat.proxy.http1 import NO_BODY, Framing, Request
from moat.proxy.http2_heads import response_fields
from moat.proxy.refusal import Refusal
from moat.proxy.server.h2_lane import Near


@dataclass(frozen=True, slots=True)
class Held:
    """A request that is ready to leave. begun: the beginning of its body, or all of it, taken off the lane."""

    request: Request
    passage: Passage
    begun: bytes = field(default=b"", repr=False)


async def hold(lane: Near, request: Request, passage: Passage, idle_s: float, share: Share) -> Held:
    """Return the request with its body replaced where a rule wants so. share: as in `hold`.

    Raises Refusal and LaneBroken.
    """
    task, framing = passage.body, request.framing
    if task is None or framing is NO_BODY:
        return Held(request, passage)
    if task.limit_bytes == 0 or (framing.kind == "length" and framing.length > task.limit_bytes):
        task.give_up()
        return Held(request, passage)
    passage = _without_expect(lane, request, passage)
    body = bytearray()
    while not lane.body.is_done and len(body) <= task.limit_bytes:
        if payload := lane.body.take(lane.buffer):
            body += payload
            share.at_least(len(body))
        if lane.body.has_more or not (payload or lane.body.is_done):
            await _more(lane, idle_s)
    if len(body) > task.limit_bytes:
        task.give_up()
        return Held(request, passage, bytes(body))
    applied = task.apply(bytes(body))
    if framing.kind == "length":
        request = replace(request, framing=Framing("length", len(applied.body)))
    return Held(request, passage.with_body(applied), applied.body)


async def _more(lane: Near, idle_s: float) -> None:
    if lane.body.has_more:
        return await asyncio.sleep(0)
    try:
        async with asyncio.timeout(idle_s):
            await lane.more()
    except TimeoutError:
        raise Refusal(408, "the request's body did not come", kind="timeout") from None


def _without_expect(lane: Near, request: Request, passage: Passage) -> Passage:
    """Ask for the body ourselves: upstream hears of the request only when it is whole (RFC 9110 §10.1.1)."""
    if "expect" not in request.fields:
        return passage
    if not lane.buffer and not lane.has_ended:
        lane.head(response_fields(100, ()))
    return replace(passage, head=passage.head.with_headers(passage.head.headers.without("expect")))
