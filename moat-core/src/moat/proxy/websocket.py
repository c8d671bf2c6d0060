"""Removes the credentials of a run from what a service sends through a websocket (RFC 6455). Sans-IO.

    server ─ frames ─▶ heads and payload told apart ─▶ payload scrubbed, as one body a message ─▶ the same frames

A replacement has the length of what it replaces, so that no frame changes but in its payload; a secret is found across
the frames of one message. Compression is not agreed on: its offer was taken out of the request (`answering`). A tail
that may begin a secret waits for the next bytes of its message, and whatever comes after it waits behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from moat.proxy.http1 import Malformed, Response
from moat.proxy.scrub import Scrub, ScrubbedStream

_CONTROL = 0x8
_KNOWN = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))  # RFC 6455 §5.2
_MAX_CONTROL_BYTES = 125  # §5.5
MAX_WAITING = 4_096  # heads and control frames behind a tail, 125 bytes at most each: two pings a minute for half a day
_LENGTH_BYTES = {126: 2, 127: 8}


class ScrubbedFrames:
    """One direction of one connection. scrub: what to look for now, asked again for every message. found: see Scrub."""

    def __init__(self, scrub: Callable[[], Scrub], found: Callable[[int], None] | None = None) -> None:
        self._scrub = scrub
        self._found = found
        self._message: ScrubbedStream | None = None
        self._head = bytearray()  # of a frame, while it is not all there
        self._left = 0  # of the payload of the current frame
        self._is_control = False
        self._is_final = False
        self._control = bytearray()  # payload of a control frame, while it is not all there
        self._taken = 0  # payload of this message that came
        self._given = 0  # and that left
        self._between: deque[tuple[int, bytes]] = deque()  # what leaves once so much payload has left

    def feed(self, data: bytes) -> bytes:
        """Return what may leave now. Raises Malformed for what is not a server's frame."""
        out, at = bytearray(), 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                out += self._payload(piece)
            else:
                self._head += data[at : at + 1]
                at += 1
                out += self._begun()
        return bytes(out)

    def finish(self) -> bytes:
        """Return what was held back, when the connection ends."""
        return self._over() + bytes(self._head)

    def _begun(self) -> bytes:
        """Look at a head; take it when it is whole."""
        head = self._head
        if len(head) < 2:
            return b""
        if head[0] & 0x70 or head[0] & 0x0F not in _KNOWN or head[1] & 0x80:
            raise Malformed("a frame that no server sends, or with an extension that was not agreed on")
        short = head[1] & 0x7F
        more = _LENGTH_BYTES.get(short, 0)
        if len(head) < 2 + more:
            return b""
        self._is_control = bool(head[0] & _CONTROL)
        self._is_final = bool(head[0] & 0x80)
        self._left = int.from_bytes(head[2:]) if more else short
        if self._is_control and (self._left > _MAX_CONTROL_BYTES or not self._is_final):
            raise Malformed("a control frame is too long or in parts")
        if len(self._between) >= MAX_WAITING:
            raise Malformed("too many frames while what may be a credential is not told to its end")
        self._between.append((self._taken, bytes(head)))
        head.clear()
        return self._payload(b"") if not self._left else self._flush(b"")

    def _payload(self, piece: bytes) -> bytes:
        """Take a piece of payload; with the frame's last, see to its end."""
        self._left -= len(piece)
        if self._is_control:
            self._control += piece
            if self._left:
                return b""
            stream = self._scrub().stream(self._found)
            self._between.append((self._taken, stream.feed(bytes(self._control)) + stream.finish()))
            self._control.clear()
            return self._flush(b"")
        if self._message is None:
            self._message = self._scrub().stream(self._found)
        self._taken += len(piece)
        out = self._flush(self._message.feed(piece) if piece else b"")
        return out + self._over() if not self._left and self._is_final else out

    def _over(self) -> bytes:
        """End a message: nothing of a secret can follow."""
        out = self._flush(self._message.finish() if self._message is not None else b"")
        self._message, self._taken, self._given = None, 0, 0
        return out

    def _flush(self, clean: bytes) -> bytes:
        """Return clean payload with the heads and control frames that stand between."""
        out = bytearray()
        while clean or (self._between and self._between[0][0] == self._given):
            if self._between and self._between[0][0] == self._given:
                out += self._between.popleft()[1]
                continue
            until = self._between[0][0] - self._given if self._between else len(clean)
            out += clean[:until]
            self._given += len(clean[:until])
            clean = clean[until:]
        return bytes(out)


def is_websocket(response: Response) -> bool:
    """Whether a 101 changes to the websocket protocol."""
    return [name.lower() for name in response.fields.get("upgrade", ())] == ["websocket"]


def check_extensions(response: Response) -> None:
    """Raise Malformed where a server agrees on extensions that it was not offered: its frames could not be read."""
    if "sec-websocket-extensions" in response.fields:
        raise Malformed("the server uses websocket extensions that it was not offered")
