"""A small corporate HTTP proxy on loopback: CONNECT and absolute-form, one user, a name for every host it may lead to.

    with connect_proxy({"api.example.com": 8443}) as proxy: upstream.proxy = proxy.url

Wants `moat:s3cr3t p@ss` unless told otherwise, answers 407 to everybody else and 403 for hosts that it does not know.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PASSWORD = "s3cr3t p@ss"
EXPECTED = "Basic " + base64.b64encode(f"moat:{PASSWORD}".encode()).decode()


@dataclass
class ConnectProxy:
    """The running proxy. ports: host → port on loopback. heads: every request head that it saw, lines without CR LF."""

    ports: Mapping[str, int]
    listener: socket.socket
    wants: str = EXPECTED
    heads: list[list[str]] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What goes into config.yaml."""
        return f"http://moat:s3cr3t%20p%40ss@127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """Return the request lines."""
        return [head[0] for head in self.heads]

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _talk(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            pending = b""
            while b"\r\n\r\n" not in pending:
                if not (data := sock.recv(65_536)):
                    return
                pending += data
            head, _, rest = pending.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            self.heads.append(lines)
            if self.wants and f"Proxy-Authorization: {self.wants}" not in lines:
                return sock.sendall(
                    b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
                )
            self._lead(sock, lines, rest)
        return None

    def _lead(self, sock: socket.socket, lines: list[str], rest: bytes) -> None:
        method, target, _ = lines[0].split(" ")
        host = target.removeprefix("http://").partition("/")[0].rpartition(":")[0] or target.split("/")[2]
        if (port := self.ports.get(host)) is None:
            return sock.sendall(b"HTTP/1.1 403 Not from here\r\nContent-Length: 0\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                kept = [line for line in lines[1:] if not line.startswith("Proxy-")]
                upstream.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "", ""]).encode("latin-1"))
            upstream.sendall(rest)
            back = threading.Thread(target=_pump, args=(upstream, sock), daemon=True)
            back.start()
            _pump(sock, upstream)
            back.join()
        return None


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def connect_proxy(ports: Mapping[str, int], wants: str = EXPECTED) -> Iterator[ConnectProxy]:
    """Run a proxy."""
    proxy = ConnectProxy(ports, socket.create_server(("127.0.0.1", 0)), wants)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
        proxy.close()
        thread.join(5)
