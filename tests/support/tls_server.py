"""A plain OpenSSL server on loopback that remembers every connection: was it resumed, what came, how did it end.

    with tls_server(context) as server: … 127.0.0.1:{server.port} …; server.handshakes

Answers each request head with 200 and `ok`. Threads and blocking sockets: nothing of ours is on its side.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Handshake:
    """One connection. problem: what OpenSSL said about its handshake, "" for nothing; data: what came inside.

    has_certificate: whether the client showed one.
    """

    was_resumed: bool = False
    version: str = ""
    has_certificate: bool = False
    problem: str = ""
    data: bytes = b""


@dataclass
class TlsServer:
    """The running server. context: None to speak without TLS. open: connections that live."""

    context: ssl.SSLContext | None
    listener: socket.socket
    handshakes: list[Handshake] = field(default_factory=list)
    open: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def pin(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> bytes:
        """Return everything that came inside of any connection."""
        return b"".join(each.data for each in self.handshakes)

    def hang_up(self) -> None:
        """Close every connection that is open, as a server does that has waited long enough."""
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        handshake = Handshake()
        self.handshakes.append(handshake)
        with contextlib.suppress(OSError):
            try:
                if self.context is not None:
                    sock = self.context.wrap_socket(sock, server_side=True)
            except ssl.SSLError as error:
                handshake.problem = error.reason or "failed"
                return sock.close()
            if isinstance(sock, ssl.SSLSocket):
                handshake.was_resumed, handshake.version = bool(sock.session_reused), sock.version() or ""
                handshake.has_certificate = sock.getpeercert(binary_form=True) is not None
            self.open.append(sock)
            with sock:
                self._answer(sock, handshake)
        return None

    def _answer(self, sock: socket.socket, handshake: Handshake) -> None:
        pending = b""
        while data := sock.recv(65_536):
            handshake.data += data
            pending += data
            while b"\r\n\r\n" in pending or (self.context is None and pending):  # a ClientHello gets its answer too
                _, _, pending = pending.partition(b"\r\n\r\n")
                sock.sendall(OK)


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext | None) -> Iterator[TlsServer]:
    """Run a server with this context."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = TlsServer(context, listener)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.hang_up()
        thread.join(5)
