"""One stream of an HTTP/2 connection, either side: a body in, a body out, heads and trailers, a reset.

    link ─ take_in ─▶ buffer ─▶ body.take, by its reader           taking gives the peer room for as much again
    link ◀─ its turn ─ send ◀── its writer                         waits while the peer gives none

What its peer resets, or the end of the connection, breaks a lane: whoever reads or writes it gets LaneBroken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from hpack.struct import HeaderTuple

from moat.proxy.bodies import BodyReader
from moat.proxy.http1 import Malformed
from moat.proxy.http2 import CANCEL, Head, Http2, Payload
from moat.proxy.http2_heads import plain_fields, read_trailers
from moat.proxy.server.stream import Stream


class Carrier(Protocol):
    """What a lane needs of its link. turn: held while sending."""

    wire: Http2
    turn: asyncio.Lock
    is_over: bool
    stream: Stream

    def took(self, lane: Lane, count: int) -> None:
        """Let the peer send count bytes more on lane."""
        ...

    def forget(self, lane: Lane) -> None:
        """Drop a lane that nobody uses any more."""
        ...

    def flush(self) -> None:
        """Write what is to be sent."""
        ...

    async def drain(self) -> None:
        """Wait while the peer does not read; only in one's turn. Raises LaneBroken."""
        ...


class Near(Protocol):
    """What an exchange needs of its client: a Lane, or an HTTP/1.1 client seen as one."""

    buffer: bytearray
    has_finished: bool

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what is sent."""
        ...

    @property
    def body(self) -> BodyReader:
        """The request's body, in buffer."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether all of the request has come."""
        ...

    async def more(self) -> bool:
        """Wait for more of it. Raises LaneBroken."""
        ...

    def head(self, fields: Iterable[HeaderTuple], *, is_over: bool = False) -> None:
        """Send a response head. Raises LaneBroken."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer's body. Raises LaneBroken."""
        ...

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End the answer's body. Raises LaneBroken."""
        ...


class LaneBroken(ConnectionError):
    """The lane cannot be used any more.

    code: of the reset; None when the connection ended. is_unseen: the peer promises that it did nothing with the
    request (RFC 9113 §8.7). problem: what the peer did wrong, "" when it was not us who broke it.
    """

    def __init__(self, code: int | None, *, is_unseen: bool = False, problem: str = "") -> None:
        super().__init__("the HTTP/2 stream was reset" if code is not None else "the HTTP/2 connection ended")
        self.code = code
        self.is_unseen = is_unseen
        self.problem = problem


class Lane:
    """One stream of a link. buffer: body bytes that came and were not taken; `body` takes them.

    on_broken: called once when the peer resets it or the connection ends.
    """

    def __init__(self, link: Carrier, number: int) -> None:
        self.number = number
        self.link = link
        self.buffer = bytearray()
        self.heads: deque[Head] = deque()
        self.body = LaneReader(self)
        self.broken: LaneBroken | None = None
        self.has_ended = False
        self.has_finished = False
        self.on_broken: Callable[[], None] | None = None
        self._due: int | None = None
        self._sent_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def expect(self, length: int) -> None:
        """Say how long the body is: one that is not breaks the lane. What came already counts. Raises Malformed."""
        self._due = length
        self._account(len(self.buffer))
        if self.has_ended:
            self._end()

    async def more(self) -> bool:
        """Wait for more bytes, a head or the end; False when it had ended before. Raises LaneBroken."""
        if self.has_ended:
            return False
        self._check()
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader
        if not self.buffer and not self.has_ended:
            self._check()
        return True

    async def send(self, data: bytes) -> None:
        """Send data as the peer gives room. Raises LaneBroken."""
        view = memoryview(data)
        while view:
            if not self._room():
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
                continue
            async with self.link.turn:
                await self.link.drain()
                if room := self._room():
                    self.link.wire.data(self.number, view[:room])
                    self._sent_bytes += len(view[:room])
                    self.link.flush()
                    view = view[room:]

    @property
    def is_full(self) -> bool:
        """Whether the peer does not take what is sent."""
        return self._is_shut or self.link.stream.is_full

    def untaken(self) -> object:
        """Return what changes when the peer takes some of what is sent."""
        return self._sent_bytes, 0 if self._is_shut else self.link.stream.untaken()

    def head(self, fields: Iterable[HeaderTuple], *, is_over: bool = False) -> None:
        """Send a field section. Raises LaneBroken."""
        self._check()
        self.link.wire.head(self.number, fields, is_over=is_over)
        self.has_finished = self.has_finished or is_over
        self.link.flush()

    def finish(self, trailers: Iterable[tuple[str, str]]) -> None:
        """End what is sent, with trailers if there are any. Raises LaneBroken."""
        self._check()
        if fields := plain_fields(trailers):
            return self.head(fields, is_over=True)
        self.has_finished = True
        self.link.wire.data(self.number, b"", is_over=True)
        return self.link.flush()

    async def settle(self) -> None:
        """Wait until the peer has taken what was sent, all but a little. Raises LaneBroken."""
        async with self.link.turn:
            await self.link.drain()

    def leave(self, code: int = CANCEL) -> None:
        """Have nothing more to do with it: reset it where it is not over on both sides."""
        self.on_broken = None
        if self.broken is None and not self.link.is_over and not (self.has_ended and self.has_finished):
            self.link.wire.reset(self.number, code)
            self.link.flush()
        self.link.forget(self)
        self.break_off(LaneBroken(code))

    def take_in(self, event: Head | Payload) -> None:
        """Called by the link for what comes."""
        if isinstance(event, Payload):
            self._account(len(event.data))
            self.buffer += event.data
        elif event.kind == "trailers":
            self.body.trailers = read_trailers(event.pairs)
        else:
            self.heads.append(event)
        if event.is_over:
            self._end()
        _wake(self._reader)

    def give_room(self) -> None:
        """Called by the link when the peer may take more."""
        _wake(self._writer)

    def break_off(self, problem: LaneBroken) -> None:
        """Called by the link when the peer resets it, or the connection ends."""
        if self.broken is None:
            self.broken = problem
            _wake(self._reader)
            _wake(self._writer)
            callback, self.on_broken = self.on_broken, None
            if callback is not None and not (self.has_ended and self.has_finished):
                callback()

    @property
    def _is_shut(self) -> bool:
        """Whether it waits for the peer to open its window."""
        return self._writer is not None and not self._writer.done()

    def _room(self) -> int:
        self._check()
        return self.link.wire.room(self.number)

    def _check(self) -> None:
        if self.broken is not None:
            raise LaneBroken(self.broken.code, is_unseen=self.broken.is_unseen, problem=self.broken.problem)

    def _account(self, count: int) -> None:
        if self._due is not None:
            self._due -= count
            if self._due < 0:
                raise Malformed("the body is longer than its Content-Length")

    def _end(self) -> None:
        if self._due:
            raise Malformed("the body is shorter than its Content-Length")
        self.has_ended = True
        self.body.look()


class LaneReader:
    """A BodyReader of what comes on a lane; its buffer is the lane's. Taking makes room for more."""

    has_more = False

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.is_done = False
        self.may_end_here = False
        self.trailers: list[tuple[str, str]] = []

    def take(self, buffer: bytearray) -> bytes:
        """Return all that is there."""
        payload = bytes(buffer)
        buffer.clear()
        if payload:
            self._lane.link.took(self._lane, len(payload))
        self.look()
        return payload

    def end(self) -> bytes:
        """Return nothing: nothing is kept back."""
        return b""

    def look(self) -> None:
        """See whether this is the end."""
        self.is_done = self.may_end_here = self._lane.has_ended and not self._lane.buffer


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
