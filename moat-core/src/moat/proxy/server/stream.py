"""Byte streams over transports: plain TCP here, TLS in `tls`, both with the same few calls.

Bytes are pushed into `buffer` as they come and taken off its front by whoever reads; the connection is paused while
more than HIGH_BYTES wait there. `more` waits for more of them; a `sink` is called instead while one is set, without a
task in between. `drain` waits while the peer does not take what was written. One task reads a stream and one writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import sys
import termios
from collections.abc import Callable
from typing import Protocol, cast

from moat.proxy.server.waits import FOREVER, waits_of

HIGH_BYTES = 262_144  # less starves bulk transfers, more costs memory per slow reader (measured)
UNTAKEN_S = 300.0  # after a close: a peer that takes nothing of what is left for so long gets no more of it
_LOOKS = 8  # so many times meanwhile


class StreamBroken(ConnectionError):
    """The connection ended in the middle: reset, or TLS that is not TLS."""


class Stream(Protocol):
    """What connection, exchange and tunnel need of a plain or TLS stream.

    sink: called, instead of waking who waits in more, when bytes have come or the peer has closed. Never raises.
    is_over: whether the peer closed or reset the connection.
    """

    buffer: bytearray
    sink: Callable[[], None] | None
    is_over: bool

    @property
    def is_full(self) -> bool:
        """Whether the peer does not take what was written: `drain` would wait."""
        ...

    @property
    def peer(self) -> str:
        """The address of the peer, "" where there is none."""
        ...

    def has_unread(self) -> bool:
        """Whether the peer has sent bytes that nobody took, as far as they have come."""
        ...

    def has_news(self) -> bool:
        """Whether the kernel holds something of the peer's that the loop has not read: data, an end, a reset."""
        ...

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        ...

    def resume(self) -> None:
        """Read again, where too much waited to be taken: before a sink is set."""
        ...

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Queue data; a broken connection swallows it."""
        ...

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        ...

    def end(self) -> None:
        """Tell the peer, after what is queued, that no more comes; reading goes on, writing is swallowed."""
        ...

    def owe_nothing(self) -> None:
        """Take that the peer has all it asked for, and asks for no more: closing need not tell an end from a cut."""
        ...

    def untaken(self) -> int:
        """Return how many written bytes the peer has not acknowledged: ours and the kernel's."""
        ...

    def close(self) -> None:
        """Close after what is queued; at once when the peer takes nothing of it for UNTAKEN_S."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


def within(seconds: float) -> float:
    """Return the moment that is so far from now, on the running loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def let_go(stream: Stream) -> None:
    """Close a stream whose peer is owed nothing: at once where something is queued that it does not take."""
    if stream.untaken():
        stream.abort()
    else:
        stream.close()


class Inbox:
    """What both kinds of stream read into: the buffer, who waits for more of it, and for how long."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.sink: Callable[[], None] | None = None
        self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._until = FOREVER
        self._is_timed = False  # whether waits may know of this
        self._waits = waits_of(self._loop)

    def has_unread(self) -> bool:
        """Whether the peer has sent bytes that nobody took, as far as they have come."""
        return bool(self.buffer)

    def _arrival(self, until: float) -> asyncio.Future[None]:
        """Return what to await till _arrived. Raises TimeoutError at until."""
        self._reader = reader = self._loop.create_future()
        self._until = until
        if until != FOREVER:
            self._is_timed = True
            self._waits.begin(self, until)
        return reader

    def _arrived(self) -> None:
        """Tell whoever takes what comes: bytes, or the end."""
        if self.sink is not None:
            self.sink()
        else:
            _wake(self._reader)

    def look(self, now: float) -> float:
        """End a wait that is late. See Waits."""
        if self._reader is None or self._reader.done():
            return FOREVER
        if now < self._until:
            return self._until
        self._reader.set_exception(TimeoutError())
        return FOREVER

    def _wait_no_more(self) -> None:
        if self._is_timed:
            self._is_timed = False
            self._waits.end(self)


class PlainStream(Inbox, asyncio.Protocol):
    """A stream without TLS. above: takes the bytes instead of the buffer, once TLS has begun on top.

    number: the descriptor of the socket, where it is known; asking the loop costs a system call.
    """

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self._number = number
        self.above: Callable[[bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.Future[None] | None = None
        self._gone: Callable[[], None] | None = None
        self._is_paused = False
        self._is_lost = False
        self._has_ended = False
        self._left: tuple[int, float] | None = None
        self._ask: Callable[[int], list[tuple[int, int]]] | None = None
        self._error: Exception | None = None
        self.is_full = False

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

    def has_news(self) -> bool:
        """Whether the kernel holds something of the peer's that the loop has not read: data, an end, a reset."""
        if self._transport is None or self._is_lost:
            return True
        if self._ask is None:  # made once: registering costs as much as asking
            number = self._number
            poll = select.poll()
            poll.register(
                self._transport.get_extra_info("socket").fileno() if number is None else number,
                select.POLLIN | select.POLLRDHUP,
            )
            self._ask = poll.poll
        return bool(self._ask(0))

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        self._gone = callback
        if callback is not None and self.is_over:
            self._tell_gone()

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        self.resume()
        self.check()
        if self.is_over:
            return False
        before = len(self.buffer)
        await self._arrival(until)
        if len(self.buffer) == before:
            self.check()
        return len(self.buffer) > before

    def check(self) -> None:
        """Raise StreamBroken when the connection was reset."""
        if self._error is not None:
            raise StreamBroken("the connection was reset") from self._error

    def pause(self) -> None:
        """Let the peer wait: read nothing."""
        if not self._is_paused and not self._is_lost:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again, where too much waited to be taken."""
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    def write(self, data: bytes | memoryview) -> None:
        """Queue data; a broken connection swallows it."""
        transport = self._transport
        if transport is not None and not (self._is_lost or self._has_ended or transport.is_closing()):
            transport.write(data)  # to one that is about to be told lost, each would be a line in the log

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        if self.is_full and not self._is_lost:
            self._writer = self._loop.create_future()
            await self._writer
        if self._is_lost:
            raise StreamBroken("the connection was closed")

    def end(self) -> None:
        """Tell the peer, after what is queued, that no more comes; reading goes on, writing is swallowed."""
        if self._transport is not None and not self._is_lost and not self._transport.is_closing():
            self._has_ended = True
            with contextlib.suppress(OSError):  # it was reset, which the loop is about to tell
                self._transport.write_eof()

    def owe_nothing(self) -> None:
        """Do nothing: there is no goodbye without TLS."""

    def untaken(self) -> int:
        """Return how many written bytes the peer has not acknowledged: ours and the kernel's."""
        transport = self._transport
        if transport is None or self._is_lost:
            return 0
        kernels = bytearray(4)
        with contextlib.suppress(OSError, ValueError):  # closed just now
            fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, kernels)
        return transport.get_write_buffer_size() + int.from_bytes(kernels, sys.byteorder)

    def close(self) -> None:
        """Close after what is queued; at once when the peer takes nothing of it for UNTAKEN_S."""
        self._gone = None
        if self._transport is not None:
            self._transport.close()
            if self._is_going():
                self._left = (self.untaken(), within(UNTAKEN_S))
                self._waits.begin(self, within(UNTAKEN_S / _LOOKS))

    async def closed(self) -> None:
        """Wait, once it was closed, until the connection is gone too."""
        while self._is_going():
            self._writer = self._loop.create_future()
            await self._writer

    def look(self, now: float) -> float:
        """End a wait that is late, or the wait for a peer that takes nothing of what is left. See Waits."""
        if self._left is None or self._is_lost:
            return super().look(now)
        (before, until), count = self._left, self.untaken()
        if count < before:
            self._left = (count, now + UNTAKEN_S)
        elif now >= until:
            self.abort()
            return FOREVER
        return now + UNTAKEN_S / _LOOKS

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
        if self.above is not None:
            return self.above(data)
        self.buffer += data
        if len(self.buffer) >= HIGH_BYTES:
            self.pause()
        return self._arrived()

    def eof_received(self) -> bool:
        """Called by the loop; True keeps the other direction open."""
        self.is_over = True
        self._tell_end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.is_over = self._is_lost = True
        self._error, self._ask = exc, None
        self._wait_no_more()
        _wake(self._writer)
        self._tell_end()
        self.above = None  # a cycle: what is above holds us, and its buffers should not wait for the collector

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.is_full = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.is_full = False
        _wake(self._writer)

    def _is_going(self) -> bool:
        """Whether it was closed, and something is queued for its peer."""
        transport = self._transport
        is_closed = transport is not None and not self._is_lost and transport.is_closing()
        return is_closed and transport is not None and transport.get_write_buffer_size() > 0

    def _tell_end(self) -> None:
        if self.above is not None:
            self.above(b"")
        else:
            self._arrived()
        self._tell_gone()

    def _tell_gone(self) -> None:
        callback, self._gone = self._gone, None
        if callback is not None:
            callback()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
