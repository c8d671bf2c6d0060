"""One end of a connection on loopback, which sends its bytes in pieces of any size, and ears for what goes wrong.

    await peer.send(data, cuts)      each piece is a read of its own at the other side

No clock: both sides run on one loop, and loopback hands over at once, so turns of the loop without news are silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

TURNS = 12  # of the loop, without news: more than a byte needs from one end to the other


def cut(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """Return data in pieces of these sizes, the last of them for all that is left."""
    at = 0
    for size in cuts:
        if at < len(data):
            yield data[at : at + size]
        at += size
    if at < len(data):
        yield data[at:]


async def turns(count: int = TURNS) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class Peer(asyncio.Protocol):
    """One end of a connection. data: what came, after TLS. cuts: how what is sent is cut on the wire."""

    def __init__(self, on_data: Callable[[Peer], None] | None = None) -> None:
        self.data = bytearray()
        self.has_ended = False
        self.name = ""
        self.problem = ""
        self.upgraded = False
        self.answered = 0
        self._on_data = on_data
        self._transport: asyncio.Transport | None = None
        self._bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO] = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self._tls: ssl.SSLObject | None = None
        self._is_shaken = False
        self._cipher = bytearray()
        self._holds = False
        self.echoed = 0

    def secure(self, context: ssl.SSLContext, host: str | None) -> None:
        """Talk TLS from now on, as a client of host, or as a server."""
        self._tls = context.wrap_bio(*self._bios, server_side=host is None, server_hostname=host)
        self._decrypt()

    async def shake(self, context: ssl.SSLContext, host: str, cuts: Sequence[int]) -> None:
        """Shake hands as a client, what is sent cut on the wire."""
        self._holds = True
        self.secure(context, host)
        async with asyncio.timeout(30):
            while self._cipher or not (self.is_secure or self.problem or self.has_ended):
                cipher, self._cipher = bytes(self._cipher), bytearray()
                for piece in cut(cipher, cuts):
                    self.write_raw(piece)
                    await turns(2)
                await turns(1)
        self._holds = False

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS of this end, None where there is none."""
        return self._tls

    @property
    def is_secure(self) -> bool:
        """Whether the handshake is done."""
        return self._is_shaken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._tls is None:
            self.data += data
        else:
            self._bios[0].write(data)
            self._decrypt()
        if self._on_data is not None:
            self._on_data(self)

    def eof_received(self) -> bool:
        """Called by the loop."""
        self.has_ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        del exc
        self.has_ended = True

    async def send(self, data: bytes, cuts: Sequence[int] = (), wire_cuts: Sequence[int] = ()) -> None:
        """Send data in pieces; wire_cuts: how its ciphertext is cut."""
        for piece in cut(data, cuts):
            self.write(piece, later=bool(wire_cuts))
            if not wire_cuts:
                await turns(2)
        cipher, self._cipher = bytes(self._cipher), bytearray()
        for piece in cut(cipher, wire_cuts):
            self.write_raw(piece)
            await turns(2)

    def write(self, data: bytes, *, later: bool = False) -> None:
        """Send data at once; later: leave its ciphertext to be sent."""
        if self._tls is None:
            return self.write_raw(data)
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
        if later:
            self._cipher += self._bios[1].read()
        else:
            self.write_raw(self._bios[1].read())
        return None

    def write_raw(self, data: bytes) -> None:
        """Send bytes past TLS."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def waiting(self) -> int:
        """How many bytes wait here since the other side does not take them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def hush(self) -> None:
        """Tell nobody of what comes from now on."""
        self._on_data = None

    def pause(self) -> None:
        """Read nothing."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        assert self._transport is not None
        self._transport.resume_reading()

    def close(self, *, abort: bool = False) -> None:
        """End the connection; abort: without a goodbye."""
        if self._transport is None:
            return
        if abort:
            self._transport.abort()
        else:
            with contextlib.suppress(ssl.SSLError):
                if self._tls is not None and self._is_shaken:
                    self._tls.unwrap()
            self.write_raw(self._bios[1].read())
            self._transport.close()

    def _decrypt(self) -> None:
        assert self._tls is not None
        try:
            if not self._is_shaken:
                self._tls.do_handshake()
                self._is_shaken = True
            while piece := self._tls.read(65_536):
                self.data += piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        except ssl.SSLError as error:
            self.problem = error.reason or "TLS"
        if self._holds:
            self._cipher += self._bios[1].read()
        else:
            self.write_raw(self._bios[1].read())


class Ears(logging.Handler):
    """Hears what moat or the loop complains of."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.heard.append(
            f"{record.name}: {record.getMessage()} {logging.Formatter().formatException(record.exc_info)}"
            if record.exc_info
            else f"{record.name}: {record.getMessage()}"
        )


@contextlib.contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Hear every warning, and what the loop's exception handler is told."""
    loop, ears = asyncio.get_running_loop(), Ears(heard)
    loop.set_exception_handler(lambda _, context: heard.append(str(context)))
    logging.getLogger().addHandler(ears)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(ears)
        loop.set_exception_handler(None)


def held() -> tuple[int, int]:
    """Return how many tasks and descriptors there are."""
    return len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir()))


ONE_FOR_ALL = ("_sweep_out", "_look")  # of the pools and of the watch: they end by themselves when nothing is left


def timers(loop: asyncio.AbstractEventLoop) -> int:
    """Return how many timers of asyncio's own loop still run, but for the few that serve all connections."""
    left = [repr(timer) for timer in cast("Any", loop)._scheduled if not timer.cancelled()]
    return sum(not any(name in timer for name in ONE_FOR_ALL) for timer in left)
