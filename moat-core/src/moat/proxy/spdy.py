"""Removes the credentials of a run from what a server sends in SPDY/3.1 (`kubectl exec` and `port-forward`). Sans-IO.

    server ─ frames ─▶ data: each stream scrubbed as one body ─▶ data frames, cut anew, of the same bytes
                    └▶ control: as they came; one that holds a credential ends the connection

Headers are compressed, one state for all of a connection's frames: they can be read, and not changed. Data is: a stream
is bytes, to whom frames mean nothing. A stream may say its last word and wait for an answer, so little is held back:
see PromptStream. Neither end that we know counts windows (github.com/moby/spdystream).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from moat.proxy.http1 import Malformed
from moat.proxy.scrub import PromptStream, Scrub

MAX_CONTROL_BYTES = 65_536
MAX_HEADER_BYTES = 262_144  # of one block, once decompressed
MAX_STREAMS = 1_024  # of which the end is remembered or held
_HEAD_BYTES = 8
_FIN = 0x01
_VERSION = 3
_RST_STREAM = 3
_HEADER_BLOCK_AT = {1: 10, 2: 4, 8: 4}  # SYN_STREAM, SYN_REPLY, HEADERS: what stands before the block
_OTHERS = frozenset((_RST_STREAM, 4, 6, 7, 9))  # SETTINGS, PING, GOAWAY, WINDOW_UPDATE


class ScrubbedSpdy:
    """One direction of one connection. scrub: what to look for now, asked again each time. found: see Scrub."""

    def __init__(self, scrub: Callable[[], Scrub], found: Callable[[int], None] | None = None) -> None:
        self._scrub = scrub
        self._found = found
        self._head = b""  # of a frame, while it is not all there
        self._payload: bytearray | None = None  # of a control frame, while it is not all there
        self._left = 0  # of the current frame
        self._stream = 0
        self._is_last = False
        self._streams: dict[int, PromptStream] = {}
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> bytes:
        """Return what may leave now. Raises Malformed for what no server sends, and for a credential in a control."""
        out, at = bytearray(), 0
        while at < len(data):
            wanted = self._left or _HEAD_BYTES - len(self._head)
            piece = data[at : at + wanted]
            at += len(piece)
            if self._left:
                self._left -= len(piece)
                out += self._taken(piece)
            else:
                self._head += piece
                if len(self._head) == _HEAD_BYTES:
                    out += self._begun(self._head)
        return bytes(out)

    def finish(self) -> bytes:
        """Return what was held back, when the connection ends."""
        rest = b"".join([_data(number, stream.finish()) for number, stream in self._streams.items()])
        self._streams.clear()
        return rest

    def _begun(self, head: bytes) -> bytes:
        self._left = int.from_bytes(head[5:])
        if head[0] & 0x80:
            kind = int.from_bytes(head[2:4])
            is_known = kind in _HEADER_BLOCK_AT or kind in _OTHERS
            if int.from_bytes(head[:2]) & 0x7FFF != _VERSION or not is_known or self._left > MAX_CONTROL_BYTES:
                raise Malformed("a frame that no server of SPDY/3.1 sends")
            self._payload = bytearray()
        else:
            self._payload, self._head = None, b""
            self._stream, self._is_last = int.from_bytes(head[:4]), bool(head[4] & _FIN)
            if head[4] & ~_FIN:
                raise Malformed("a frame of data with flags that SPDY/3.1 has not")
        return b"" if self._left else self._taken(b"")

    def _taken(self, piece: bytes) -> bytes:
        """Take payload; with a control frame's last, look at it."""
        if self._payload is None:
            return self._of_data(piece)
        self._payload += piece
        if self._left:
            return b""
        head, payload, self._head, self._payload = self._head, bytes(self._payload), b"", None
        return self._of_control(int.from_bytes(head[2:4]), payload) + head + payload

    def _of_data(self, piece: bytes) -> bytes:
        number, is_end = self._stream, self._is_last and not self._left
        stream = self._streams.pop(number, None) or PromptStream(self._scrub, self._found)
        clean = stream.feed(piece)
        if is_end:
            return _data(number, clean + stream.finish(), is_last=True) or _frame(number, b"", _FIN)
        if stream.is_remembering:
            self._remember(number, stream)
        return _data(number, clean) if piece else _frame(number, b"")

    def _remember(self, number: int, stream: PromptStream) -> None:
        """Keep the end of a stream; the one that was silent the longest makes room, unless it waits."""
        if len(self._streams) >= MAX_STREAMS:
            oldest = next(iter(self._streams))
            if self._streams.pop(oldest).is_waiting:
                raise Malformed("too many streams while what may be a credential is not told to its end")
        self._streams[number] = stream

    def _of_control(self, kind: int, payload: bytes) -> bytes:
        """Look at a control frame; return what leaves before it."""
        plain = payload
        if kind in _HEADER_BLOCK_AT:
            plain += b"\0" + self._headers(payload[_HEADER_BLOCK_AT[kind] :])
        if self._scrub().find(plain):
            raise Malformed("a credential in a frame that cannot be changed")
        if kind == _RST_STREAM and (stream := self._streams.pop(int.from_bytes(payload[:4]), None)):
            return _data(int.from_bytes(payload[:4]), stream.finish())
        return b""

    def _headers(self, block: bytes) -> bytes:
        try:
            plain = self._inflate.decompress(block, MAX_HEADER_BYTES)
        except zlib.error:
            raise Malformed("the headers of a stream cannot be read") from None
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise Malformed("the headers of a stream are too long, or end all others")
        return plain


def _data(number: int, payload: bytes, *, is_last: bool = False) -> bytes:
    """Return a frame of data, nothing for nothing."""
    return _frame(number, payload, _FIN if is_last else 0) if payload else b""


def _frame(number: int, payload: bytes, flags: int = 0) -> bytes:
    return number.to_bytes(4) + bytes((flags,)) + len(payload).to_bytes(3) + payload


# What both ends' compression begins with (SPDY/3, §2.6.10.1): words, each after its length, and then a text.
_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|"
    "allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|"
    "keep-alive|origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join([len(word).to_bytes(4) + word.encode() for word in _WORDS.split("|")]) + _TEXT.encode()
