"""Holds an answer until it is whole, for the rules that must see all of it before the client sees any.

    upstream ─ body ─▶ held ─▶ tokens kept by the daemon ─▶ rewritten ─▶ an answer of a known length, like any other
                        └─ too much, or too slow ─▶ what was held, then the rest as it comes: never cut short

Knows neither version of HTTP: it is given a head, a reader of the body, and where the bytes come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from moat.api.http import Headers, ResponseHead
from moat.api.rules import CaptureToken
from moat.plugins.discovery import rewriter
from moat.proxy.bodies import BodyReader
from moat.proxy.capture import Caught, caught
from moat.proxy.holds import Share
from moat.proxy.http1 import Framing, Malformed, Response
from moat.proxy.refusal import Refusal
from moat.proxy.rewrite import rewritten, without_body_fields
from moat.proxy.scrub import Scrub
from moat.proxy.whole import Holding, WholeTask

_PIECE_BYTES = 65_536
HOLD_S = 60.0  # an answer that a rule waits for is a small one: what takes longer is a stream

Keep = Callable[[str, Caught], Awaitable[None]]  # (grant, …); raises Refusal where the tokens could not be kept
_find = lru_cache(maxsize=64)(rewriter)


class Source(Protocol):
    """Where the bytes of a body come from."""

    @property
    def buffer(self) -> bytearray:
        """What came and was not taken."""
        ...

    async def more(self) -> bool:
        """Wait for more; False at the end. Raises ConnectionError."""
        ...


async def settle(
    task: WholeTask,
    response: Response,
    reader: BodyReader,
    source: Source,
    keep: Keep,
    share: Share,
    hold_s: float = HOLD_S,
) -> tuple[Response, BodyReader]:
    """Return the answer as it goes on, and its reader. Raises Refusal: nothing of the answer has left then.

    share: what it may have of its run's room, till it has left.
    """
    holding = task.holding(response)
    if holding is None:
        return response, reader
    body = b""
    if holding.is_body_needed:
        held = await _held(holding, reader, source, share, hold_s)
        if held is None:
            return response, Resumed(bytes(holding.raw), reader)
        body = held
    else:  # it is still there: what has it on its way is not used again
        response = replace(response, fields={**response.fields, "connection": ("close",)})
    head = without_body_fields(response.head)
    if holding.capture is not None:
        head, body = await _kept(task, holding.capture, head, body, keep)
    for rule in holding.rewrites:
        head, body = rewritten(rule, head, body, _find)
    head = replace(head, headers=head.headers.with_set("Content-Length", str(len(body))))
    return replace(response, head=head, framing=Framing("length", len(body))), Ready(body)


async def _kept(
    task: WholeTask, rule: CaptureToken, head: ResponseHead, body: bytes, keep: Keep
) -> tuple[ResponseHead, bytes]:
    """Return an answer without its tokens, which are kept by then. Raises Refusal."""
    found = caught(rule, head, body)
    if not found.tokens:
        return head, found.body
    task.spent.add(found.tokens.values())
    await keep(rule.grant, found)
    scrub = Scrub(found.tokens.values())
    stream = scrub.stream()
    headers = Headers.of(scrub.headers(list(head.headers.items)))
    return replace(head, headers=headers, reason=scrub.text(head.reason)), stream.feed(found.body) + stream.finish()


async def _held(holding: Holding, reader: BodyReader, source: Source, share: Share, hold_s: float) -> bytes | None:
    """Return the whole body; None where it passes as it came. Raises Refusal."""
    try:
        async with asyncio.timeout(hold_s):
            problem = await _fed(holding, reader, source, share)
            if not problem:
                return holding.finish()
    except TimeoutError:
        problem = f"it was not whole after {hold_s:g} s"
    except (Malformed, ConnectionError) as failure:
        text = str(failure) if isinstance(failure, Malformed) else "it broke off"
        raise Refusal(502, f"the answer must be read and cannot be: {text}", "failed", "malformed") from None
    holding.give_up(problem)
    return None


async def _fed(holding: Holding, reader: BodyReader, source: Source, share: Share) -> str:
    """Read the body to its end; return why it is too much, "" if not. Raises Malformed, ConnectionError."""
    while not reader.is_done:
        payload = reader.take(source.buffer)
        if payload and not holding.feed(payload):
            return f"it is longer than {holding.limit_bytes} bytes"
        if not share.fits(holding.held_bytes):
            return share.problem
        if reader.has_more:
            await asyncio.sleep(0)
        elif not payload and not reader.is_done and not await source.more():
            if not reader.may_end_here:
                raise Malformed("it broke off")
            break
    return ""


class Ready:
    """A BodyReader of a body that is there already, piece by piece as its client takes it; buffers are left alone."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._left = memoryview(body)
        self.is_done = self.may_end_here = not body
        self.trailers: list[tuple[str, str]] = []

    @property
    def has_more(self) -> bool:
        """Whether taking again brings more."""
        return bool(self._left)

    def take(self, buffer: bytearray) -> bytes:
        """Return the next piece."""
        del buffer
        piece, self._left = bytes(self._left[:_PIECE_BYTES]), self._left[_PIECE_BYTES:]
        self.is_done = self.may_end_here = not self._left
        return piece

    def end(self) -> bytes:
        """Return nothing: nothing is kept back."""
        return b""


class Resumed:
    """A BodyReader that begins with what was read of the body before."""

    def __init__(self, held: bytes, inner: BodyReader) -> None:
        self._held = memoryview(held)
        self._inner = inner
        self.is_done = inner.is_done and not held
        self.may_end_here = inner.may_end_here
        self.trailers = inner.trailers

    @property
    def has_more(self) -> bool:
        """Whether taking again brings more."""
        return bool(self._held) or self._inner.has_more

    def take(self, buffer: bytearray) -> bytes:
        """Return what was held, then what is there."""
        if self._held:
            payload, self._held = self._held[:_PIECE_BYTES], self._held[_PIECE_BYTES:]
        else:
            payload = memoryview(self._inner.take(buffer))
        self.is_done = self._inner.is_done and not self._held
        self.may_end_here = self._inner.may_end_here and not self._held
        self.trailers = self._inner.trailers
        return bytes(payload)

    def end(self) -> bytes:
        """Return what is left when the stream ends."""
        held, self._held = bytes(self._held), memoryview(b"")
        return held + self._inner.end()
