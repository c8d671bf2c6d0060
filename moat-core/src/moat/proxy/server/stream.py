"""A byte stream over a uvloop transport: what came in stands in `buffer`, the reader cuts it off the front.

    while (head := take_head(stream.buffer)) is None:
        if not await stream.more(): …the peer is done

`more` waits for bytes beyond those already there, until a moment of the loop's clock if need be (`within`:
asyncio.timeout makes and cancels a timer each time, which costs more than the rest of a small request). Reading stops
at HIGH_BYTES until the next `more`; `drain` waits while the peer does not take what was written. One task reads a
stream and one writes. `TlsStream` looks the same.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol, cast

HIGH_BYTES = 262_144  # less starves bulk transfers, more costs memory per slow reader (measured)


FOREVER = math.inf


class StreamBroken(ConnectionError):
    """The connection ended in the middle: reset, or TLS that is not TLS."""


class Stream(Protocol):
    """What connection, exchange and tunnel need of a plain or TLS stream."""

    buffer: bytearray

    @property
    def is_over(self) -> bool:
        """Whether the peer closed or reset the connection."""
        ...

    @property
    def peer(self) -> str:
        """The address of the peer, "" where there is none."""
        ...

    def has_unread(self) -> bool:
        """Whether the peer has sent bytes that nobody took, as far as they have come."""
        ...

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed. To ask the kernel about, never to read from."""
        ...

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        ...

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        ...

    def write(self, data: bytes) -> None:
        """Queue data; a broken connection swallows it."""
        ...

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        ...

    def close(self) -> None:
        """Close after what is queued."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


def within(seconds: float) -> float:
    """Return the moment that is so far from now, on the running loop's clock."""
    return asyncio.get_running_loop().time() + seconds


class PlainStream(asyncio.Protocol):
    """A stream without TLS."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._until = FOREVER
        self._timer: asyncio.TimerHandle | None = None
        self._rings = FOREVER
        self._writer: asyncio.Future[None] | None = None
        self._gone: Callable[[], None] | None = None
        self._is_paused = False
        self._must_wait = False
        self._has_ended = False
        self._is_lost = False
        self._descriptor = -1
        self._error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether the peer closed or reset the connection."""
        return self._has_ended or self._is_lost

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below; only after the connection is made."""
        if self._transport is None:
            raise StreamBroken("not connected")
        return self._transport

    @property
    def peer(self) -> str:
        """The address of the peer, "" where there is none."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    def has_unread(self) -> bool:
        """Whether the peer has sent bytes that nobody took, as far as they have come."""
        return bool(self.buffer)

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed. To ask the kernel about, never to read from."""
        if self._transport is None or self._is_lost:
            return -1
        if self._descriptor < 0:
            self._descriptor = int(self._transport.get_extra_info("socket").fileno())
        return self._descriptor

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        self._gone = callback
        if callback is not None and self.is_over:
            self._tell_gone()

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        if self._error is not None:
            raise StreamBroken("the connection was reset") from self._error
        if self.is_over:
            return False
        before = len(self.buffer)
        self._reader = self._loop.create_future()
        self._until = until
        if until < self._rings:
            self._set_timer()
        await self._reader
        if len(self.buffer) == before and self._error is not None:
            raise StreamBroken("the connection was reset") from self._error
        return len(self.buffer) > before

    def write(self, data: bytes) -> None:
        """Queue data; a broken connection swallows it."""
        if self._transport is not None and not self._is_lost:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        if self._must_wait and not self._is_lost:
            self._writer = self._loop.create_future()
            await self._writer
        if self._is_lost:
            raise StreamBroken("the connection was closed")

    def close(self) -> None:
        """Close after what is queued."""
        self._gone = None
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._gone = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has its methods, not its type
        self._transport.set_write_buffer_limits(high=HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.buffer += data
        if len(self.buffer) >= HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """Called by the loop; True keeps the other direction open."""
        self._has_ended = True
        _wake(self._reader)
        self._tell_gone()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._is_lost, self._error = True, exc
        if self._timer is not None:
            self._timer.cancel()
        _wake(self._reader)
        _wake(self._writer)
        self._tell_gone()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._must_wait = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._must_wait = False
        _wake(self._writer)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = self._until
        self._timer = self._loop.call_at(self._until, self._at_time)

    def _at_time(self) -> None:
        """End the wait, if it is still the one that the timer was set for: later ones leave it alone till it rings."""
        self._timer, self._rings = None, FOREVER
        if self._reader is None or self._reader.done() or self._until == FOREVER:
            return
        if self._loop.time() < self._until:
            self._set_timer()
        else:
            self._reader.set_exception(TimeoutError())

    def _tell_gone(self) -> None:
        callback, self._gone = self._gone, None
        if callback is not None:
            callback()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
