"""A web server for inside of a run, standard library only: answers, streams events, echoes a websocket.

python3 program.py PORT     prints "ready" when it listens
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import socketserver
import struct
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer it."""
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._websocket()
        elif self.path == "/events":
            self._events()
        else:
            body = f"{self.path} for {self.headers['Host']}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(600):
            self.wfile.write(f"data: {number}\n\n".encode())
            time.sleep(0.1)

    def _websocket(self) -> None:
        key = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + GUID).digest()  # noqa: S324 # RFC 6455 wants it
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.end_headers()
        while (text := self._frame()) is not None:
            self.wfile.write(struct.pack("!BB", 0x81, len(text)) + text)
        self.close_connection = True

    def _frame(self) -> bytes | None:
        """Return the text of a short frame, None at the end."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == 8:
            return None
        mask = self.rfile.read(4)
        data = self.rfile.read(head[1] & 0x7F)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A thread for each connection."""

    daemon_threads = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
