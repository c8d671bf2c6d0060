"""What stands behind the origin: endless event streams, each event stamped as it leaves, and a sink for uploads.

    GET /events?hz=50     one `data: <CLOCK_MONOTONIC in ns>` 50 times a second, each stream at its own moment
    POST /upload          read to its end, then answered

Plain HTTP, for the origin's nginx only. Writes go to the socket at once, so that a stamp is not older than its bytes.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import select
import socket
import sys
import time

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_DONE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"


class Source:
    """All connections, served from one loop."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._clients: dict[int, socket.socket] = {}
        self._heads: dict[int, bytes] = {}
        self._unread: dict[int, int] = {}
        self._due: list[tuple[float, int, socket.socket, float]] = []
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Serve until killed."""
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            for number, _ in self._epoll.poll(wait_s):
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._read(self._clients[number])
            self._send_due()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[client.fileno()] = client
        self._heads[client.fileno()] = b""
        self._epoll.register(client.fileno(), select.EPOLLIN)

    def _read(self, client: socket.socket) -> None:
        number = client.fileno()
        with contextlib.suppress(OSError):
            if data := client.recv(1 << 20):
                return self._take(client, data)
        self._epoll.unregister(number)
        for known in (self._clients, self._heads, self._unread):
            known.pop(number, None)
        return client.close()

    def _take(self, client: socket.socket, data: bytes) -> None:
        """Read heads whole, and of bodies only their length."""
        number = client.fileno()
        if number not in self._unread:
            self._heads[number] += data
            head, blank, data = self._heads[number].partition(b"\r\n\r\n")
            if not blank:
                return
            self._heads[number] = b""
            if head.startswith(b"GET"):
                return self._begin(client, float(head.split(b"hz=")[1].split()[0]))
            self._unread[number] = int(head.lower().split(b"content-length:")[1].split()[0])
        self._unread[number] -= len(data)
        if self._unread[number] <= 0:
            del self._unread[number]
            client.send(_DONE)

    def _begin(self, client: socket.socket, hz: float) -> None:
        client.send(_STREAM)
        first = time.monotonic() + random.random() / hz  # noqa: S311 - spreads the load, hides nothing
        heapq.heappush(self._due, (first, client.fileno(), client, 1 / hz))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            at, number, client, every_s = heapq.heappop(self._due)
            if client.fileno() < 0:
                continue
            with contextlib.suppress(OSError):  # gone, or slow: it misses this one
                event = b"data: %d\n\n" % time.monotonic_ns()
                client.send(b"%x\r\n%b\r\n" % (len(event), event))
            heapq.heappush(self._due, (at + every_s, number, client, every_s))


def main() -> None:
    """Listen where the first argument says."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=2048) as listener:
        Source(listener).serve()


if __name__ == "__main__":
    main()
