"""TLS over ssl.MemoryBIO on top of a PlainStream, with the same interface. Either side of a handshake.

Pulls: bytes are decrypted when somebody asks for more, so the buffers stay bounded by those of the stream below.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import cast

from moat.proxy.server.stream import FOREVER, PlainStream, StreamBroken

_RECORD_BYTES = (
    16_384  # CPython allocates what is asked for before it reads; a TLS record holds no more (RFC 8446 §5.1)
)
_SCRATCH = bytearray(_RECORD_BYTES)  # one for all: filled and copied out without an await between
_VIEW = memoryview(_SCRATCH)

MAX_HANDSHAKE_BYTES = 131_072  # a hello over many records is fine (RFC 8446 §4), an endless one is not


class TlsStream:
    """A stream inside TLS. Make it with accept_tls or connect_tls."""

    def __init__(self, below: PlainStream, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        self.buffer = bytearray()
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._has_ended = False
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )

    @property
    def is_over(self) -> bool:
        """Whether the peer closed or reset the connection."""
        return self._has_ended or self._below.is_over

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

    def resume(self, session: ssl.SSLSession) -> None:
        """Offer to resume session; before the handshake."""
        with contextlib.suppress(ValueError):  # of another context, after new settings
            self._tls.session = session

    def has_unread(self) -> bool:
        """Whether the peer has sent bytes that nobody took. Those of TLS itself (tickets) are none."""
        if not self.buffer and self._below.has_unread():
            self._feed()
            try:
                self._decrypt()
            except StreamBroken:
                self._has_ended = True
        return bool(self.buffer)

    @property
    def peer(self) -> str:
        """The address of the peer, "" where there is none."""
        return self._below.peer

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed. To ask the kernel about, never to read from."""
        return self._below.fileno()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Have callback called once when the peer closes or resets, also while nobody reads."""
        self._below.on_gone(callback)

    async def handshake(self, until: float = FOREVER) -> None:
        """Shake hands. Raises ssl.SSLError (with verify_message for a bad certificate), StreamBroken, TimeoutError."""
        seen = 0
        while True:
            seen += self._feed()
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._flush()  # the alert tells the peer why
                raise
            else:
                self._flush()
                return
            if seen > MAX_HANDSHAKE_BYTES:
                raise StreamBroken("the TLS handshake is too long")
            if not await self._below.more(until):
                raise StreamBroken("the connection ended in the TLS handshake")

    async def more(self, until: float = FOREVER) -> bool:
        """Wait for more bytes in buffer; False when the peer has closed. Raises StreamBroken, TimeoutError at until."""
        while not self._has_ended:
            if (self._feed() or self._incoming.pending) and self._decrypt():  # a handshake may leave some there
                return True
            if self._has_ended or not await self._below.more(until):
                break
        self._has_ended = True
        return False

    def write(self, data: bytes) -> None:
        """Queue data; a broken connection swallows it."""
        try:
            sent = self._tls.write(data) if data else 0
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError:  # closed below or by the peer; the reader is told
            self._has_ended = True
            return
        self._flush()

    async def drain(self) -> None:
        """Wait while more than HIGH_BYTES are queued. Raises StreamBroken when nobody will ever take them."""
        await self._below.drain()

    def close(self) -> None:
        """Say goodbye (close_notify, so that an end is told from a truncation) and close after what is queued."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._below.abort()

    def _feed(self) -> int:
        taken = len(self._below.buffer)
        if taken:
            self._incoming.write(self._below.buffer)
            self._below.buffer.clear()
        return taken

    def _decrypt(self) -> bool:
        """Decrypt until nothing whole is left: what stays inside would get no event (a stall)."""
        before = len(self.buffer)
        try:
            while (count := cast("int", self._tls.read(_RECORD_BYTES, _SCRATCH))) > 0:  # with a buffer: how many
                self.buffer += _VIEW[:count]
                if not self._incoming.pending and not self._tls.pending():
                    break  # asking again would raise, which costs
            else:
                self._has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        except ssl.SSLError as error:
            raise StreamBroken("the TLS of the peer is broken") from error
        if self._outgoing.pending:  # key updates
            self._flush()
        return len(self.buffer) > before

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())
