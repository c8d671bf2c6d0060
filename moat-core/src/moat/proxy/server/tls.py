"""TLS over ssl.MemoryBIO on top of a PlainStream, with the same interface. Either side of a handshake.

    transport ─ data ─▶ PlainStream ─ above ─▶ MemoryBIO ─▶ decrypt ─▶ buffer ─▶ sink, or who waits in more

Bytes are decrypted as they come: what stayed encrypted would get no event. The stream below pauses at HIGH_BYTES.
A connection that ends without TLS's own goodbye was cut, by whoever is in between or by a crash: that is no end but a
break (RFC 8446 §6.1), or a body that only the connection's end delimits could be shortened unseen (RFC 9112 §9.8).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import cast

from moat.proxy.server.stream import HIGH_BYTES, Inbox, PlainStream, StreamBroken
from moat.proxy.server.waits import FOREVER

_RECORD_BYTES = (
    16_384  # CPython allocates what is asked for before it reads; a TLS record holds no more (RFC 8446 §5.1)
)
_VIEW = memoryview(bytearray(HIGH_BYTES))  # one for all: filled and copied out without an await between
_LAST = HIGH_BYTES - _RECORD_BYTES  # where a whole record still fits

MAX_HANDSHAKE_BYTES = 131_072  # a hello over many records is fine (RFC 8446 §4), an endless one is not


class TlsStream(Inbox):
    """A stream inside TLS. Shake hands before anything else."""

    def __init__(self, below: PlainStream, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        super().__init__()
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._is_shaken = False
        self._has_ended = False
        self._was_bidden_farewell = False
        self._owes_goodbye = True
        self._problem: ssl.SSLError | None = None
        self._seen = 0
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)  # into a buffer: how many bytes

    @property
    def is_full(self) -> bool:
        """Whether the peer does not take what was written: `drain` would wait."""
        return self._below.is_full

    @property
    def protocol(self) -> str:
        """What was agreed on by ALPN, "" for nothing; after the handshake."""
        return self._tls.selected_alpn_protocol() or ""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection may resume; useful once some bytes were read (TLS 1.3 tickets come late)."""
        return self._tls.session

    @property
    def was_resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return bool(self._tls.session_reused)

    @property
    def peer(self) -> str:
        """The address of the peer, "" where there is none."""
        return self._below.peer

    def offer(self, session: ssl.SSLSession) -> None:
        """Offer to resume session; before the handshake."""
        with contextlib.suppress(ValueError):  # of another context, after new settings
            self._tls.session = session

    def resume(self) -> None:
        """Read again, where too much waited to be taken."""
        self._below.resume()

    def has_news(self) -> bool:
        """Whether the kernel holds something of the peer's that the loop has not read: data, an end, a reset."""
        return self._below.has_news()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        self._below.on_gone(callback)

    async def handshake(self, until: float = FOREVER) -> None:
        """Shake hands. Raises ssl.SSLError (with verify_message for a bad certificate), StreamBroken, TimeoutError."""
        self._take_over()
        try:
            while self._wants_more():
                before = self._seen
                if before > MAX_HANDSHAKE_BYTES:
                    raise StreamBroken("the TLS handshake is too long")
                if not self._below.is_over:
                    await self._arrival(until)
                if self._seen == before:
                    raise StreamBroken("the connection ended in the TLS handshake")
        finally:
            self._wait_no_more()  # whatever waits later sets a time of its own
        if self._incoming.pending:
            self._decrypt()

    def _wants_more(self) -> bool:
        """Shake hands as far as the bytes that have come allow; False: it is done. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return True
        finally:
            self._flush()  # also the alert, which tells the peer why
        self._is_shaken = True
        return False

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        before = len(self.buffer)
        self._below.resume()
        if not self.is_over:
            await self._arrival(until)
        if len(self.buffer) > before:
            return True
        if self._problem is not None:
            raise StreamBroken("the TLS of the peer is broken") from self._problem
        self._below.check()
        if not self._was_bidden_farewell:
            raise StreamBroken("the connection was cut inside of TLS")
        self.is_over = True
        return False

    def write(self, data: bytes | memoryview) -> None:
        """Queue data; a broken connection swallows it."""
        if self._has_ended:
            return
        try:
            sent = self._tls.write(data) if data else 0
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError:  # closed below or by the peer; the reader is told
            self.is_over = True
            return
        self._below.write(self._outgoing.read())

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        await self._below.drain()

    def untaken(self) -> int:
        """Return how many written bytes the peer has not acknowledged: ours and the kernel's."""
        return self._below.untaken()

    def end(self) -> None:
        """Say goodbye (close_notify, RFC 8446 §6.1) and end below; what the peer says is still read."""
        self._say_goodbye()
        self._below.end()

    def close(self) -> None:
        """Say goodbye, so that an end is told from a truncation, and close after what is queued. See Stream."""
        if self._owes_goodbye or not self._was_bidden_farewell or not self._below.has_news():
            self._say_goodbye()
        self._let_go()
        self._below.close()

    def owe_nothing(self) -> None:
        """Say no goodbye to a peer that has said its own, and closed its side too: it would answer with a reset."""
        self._owes_goodbye = False

    def abort(self) -> None:
        """Close at once."""
        self._let_go()
        self._below.abort()

    def _take_over(self) -> None:
        """Have what comes below from now on come here."""
        self.is_over = self._below.is_over
        self._below.above = self._received
        if self._below.buffer:
            self._seen += self._incoming.write(self._below.buffer)
            self._below.buffer.clear()
        self._below.resume()

    def _say_goodbye(self) -> None:
        self._has_ended = True
        with contextlib.suppress(ssl.SSLError):  # it would like to read the peer's goodbye
            self._tls.unwrap()
        self._flush()

    def _let_go(self) -> None:
        self._wait_no_more()
        self.sink = None

    def _received(self, data: bytes) -> None:
        """Take encrypted bytes; none at the end of the connection."""
        if not data:  # of what came before nothing is left to decrypt
            self.is_over = True
            self._wait_no_more()  # whoever is cancelled with the stream below closes that one only
            return self._arrived()
        self._incoming.write(data)
        if self._is_shaken:
            before = len(self.buffer)
            self._decrypt()
            if len(self.buffer) == before and not self.is_over:
                return None  # part of a record, or TLS's own (tickets)
        else:
            self._seen += len(data)
        return self._arrived()

    def _decrypt(self) -> None:
        """Decrypt until nothing whole is left."""
        try:
            self._read_all()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_over = self._was_bidden_farewell = True
        except ssl.SSLError as error:
            self._problem, self.is_over = error, True
        if self._outgoing.pending:  # key updates
            self._flush()
        if len(self.buffer) >= HIGH_BYTES:
            self._below.pause()

    def _read_all(self) -> None:
        """Read records until none is left, or OpenSSL says why not. At the end, too, what was read is in buffer."""
        read, incoming, at = self._read, self._incoming, 0
        try:
            while (count := read(_RECORD_BYTES, _VIEW[at:] if at else _VIEW)) > 0:
                at += count
                if not incoming.pending:
                    return  # asking again would raise, which costs; OpenSSL itself keeps nothing of a record read whole
                if at > _LAST:
                    self.buffer += _VIEW[:at]
                    at = 0
            self.is_over = self._was_bidden_farewell = True
        finally:
            self.buffer += _VIEW[:at]

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())
