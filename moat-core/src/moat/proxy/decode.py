"""Undoes content codings as a body streams: gzip, deflate, br or zstd (RFC 9110 §8.4.1), or a few of them. Sans-IO.

A little input may become a lot of output: it is handed out in pieces of bounded size, `has_more` says that more of it
waits, and a body that grows beyond all sense is Malformed.

    out = decoder.feed(payload)
    while decoder.has_more: out = decoder.feed(b"")
    decoder.finish()            Malformed when the coding's end is missing
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from moat.api.http import Headers
from moat.proxy.http1 import Malformed

MAX_PIECE_BYTES = 262_144
MAX_RATIO = 1_100  # just above what deflate can reach (1,032); br and zstd exceed it only to hurt
FREE_BYTES = 64 * 1024 * 1024  # below that, the ratio does not matter
MAX_PARTS = 4_096  # gzip members or zstd frames of one body: each costs a copy of what waits
MAX_CODINGS = 3  # stacked: nobody sends more than two, each costs a window and a pass
MAX_BARREN_BYTES = 4 * 1024 * 1024  # between two codings, without any output: codings of nothing are made to hurt
_MAX_WINDOW_LOG = 23  # RFC 9659: what a reader of zstd must have room for; more costs memory per stream
_ZLIB_CM = 8  # RFC 1950 §2.2


class Engine(Protocol):
    """One library's decoder. is_over: whether the coding's end was seen."""

    has_more: bool
    is_over: bool

    def push(self, data: bytes) -> bytes:
        """Return at most MAX_PIECE_BYTES, or a little more where the library rounds up. Raises Malformed."""
        ...


class Decoder:
    """One body. What follows the coding's end is dropped, as browsers do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken = 0
        self._given = 0

    @property
    def has_more(self) -> bool:
        """Whether feeding nothing brings more."""
        return self._engine.has_more

    def feed(self, data: bytes) -> bytes:
        """Return about MAX_PIECE_BYTES of output at most. Raises Malformed."""
        self._taken += len(data)
        out = self._engine.push(data)
        self._given += len(out)
        if self._given > max(FREE_BYTES, self._taken * MAX_RATIO):
            raise Malformed("the body grows beyond all sense when it is decoded")
        return out

    def finish(self) -> None:
        """Take the body's end. Raises Malformed when the coding had not ended; an empty body needs none."""
        if self._taken and not self._engine.is_over:
            raise Malformed("the encoded body breaks off")


def decoder_for(codings: str) -> Decoder | None:
    """Return what undoes codings, as `named_codings` writes them; None where one is not known or they are too many."""
    kinds = [_KINDS.get(name) for name in codings.split(", ")]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds) or len(known) > MAX_CODINGS:
        return None
    engine = known[0]()
    for kind in known[1:]:
        engine = _Stack(kind(), engine)
    return Decoder(engine)


def named_codings(headers: Headers) -> str:
    """Return the codings of a body in the order they were applied, lower case, `gzip, br`; "" for none."""
    listed = [part.strip().lower() for part in ",".join(headers.get_all("content-encoding")).split(",")]
    return ", ".join(part for part in listed if part not in ("", "identity"))


def quotable(codings: str) -> str:
    """Return codings as a refusal may quote them: an upstream may write whatever it was sent where a name belongs."""
    names = codings.split(", ")[: MAX_CODINGS + 1]
    return ", ".join(name if name in _REGISTERED else "one that is not registered" for name in names)


class _Stack:
    """Two codings: outer was applied last and is undone first."""

    def __init__(self, outer: Engine, inner: Engine) -> None:
        self._outer = outer
        self._inner = inner
        self._waiting = b""
        self._barren = 0
        self.has_more = False
        self.is_over = False

    def push(self, data: bytes) -> bytes:
        self._waiting += data
        if self._inner.has_more:  # it may take nothing new before it has given what it holds
            out = self._inner.push(b"")
        else:
            given, self._waiting = self._waiting, b""
            middle = self._outer.push(given)
            self._barren += len(middle)
            out = self._inner.push(middle)
        self._barren = 0 if out else self._barren
        if self._barren > MAX_BARREN_BYTES:
            raise Malformed("the body has codings of nothing")
        self.is_over = self._inner.is_over and self._outer.is_over
        self.has_more = bool(self._waiting) or self._inner.has_more or self._outer.has_more
        return out


class _Zlib:
    """gzip, one member or several, and deflate, sent with zlib's header or without (RFC 9110 §8.4.1.2)."""

    def __init__(self, window_bits: int = 0) -> None:
        self._window_bits = window_bits  # 0: to be told from the first bytes
        self._zlib = zlib.decompressobj(window_bits or zlib.MAX_WBITS)
        self._waiting = b""
        self._parts_left = MAX_PARTS
        self._has_begun = bool(window_bits)
        self.has_more = False
        self.is_over = False

    def push(self, data: bytes) -> bytes:
        data = self._waiting + data
        if not self._has_begun and not self._begin(data):
            return b""
        try:
            out = self._zlib.decompress(data, MAX_PIECE_BYTES)
        except zlib.error:
            raise Malformed("the encoded body cannot be decoded") from None
        self._waiting = self._zlib.unconsumed_tail
        self.is_over = self._zlib.eof
        if self._zlib.eof and self._window_bits == _GZIP and self._zlib.unused_data.startswith(b"\x1f"):
            self._parts_left = _one_less(self._parts_left)
            self._waiting = self._zlib.unused_data
            self._zlib = zlib.decompressobj(_GZIP)
            self.is_over = False
        self.has_more = not self.is_over and (bool(self._waiting) or len(out) >= MAX_PIECE_BYTES)
        return out

    def _begin(self, data: bytes) -> bool:
        if len(data) < 2:
            self._waiting = data
            return False
        has_header = data[0] & 0x0F == _ZLIB_CM and (data[0] << 8 | data[1]) % 31 == 0  # RFC 1950 §2.2
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        self._has_begun = True
        return True


class _Brotli:
    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped] # has none; imported only where a server sends it unasked

        self._error: type[Exception] = brotli.error
        self._brotli = brotli.Decompressor()
        self.has_more = False
        self.is_over = False

    def push(self, data: bytes) -> bytes:
        if self.is_over:
            return b""
        try:
            out = bytes(self._brotli.process(data, output_buffer_limit=MAX_PIECE_BYTES))
        except self._error:
            raise Malformed("the encoded body cannot be decoded") from None
        self.is_over = bool(self._brotli.is_finished())
        # It may accept more and still hold output back (1.2): a full piece means that there may be another.
        is_full = len(out) >= MAX_PIECE_BYTES or not self._brotli.can_accept_more_data()
        self.has_more = is_full and not self.is_over
        return out


class _Zstd:
    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._error: type[Exception] = zstd.ZstdError
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        self._new: Callable[[], zstd.ZstdDecompressor] = lambda: zstd.ZstdDecompressor(options=options)
        self._zstd = self._new()
        self._waiting = b""
        self._parts_left = MAX_PARTS
        self.has_more = False
        self.is_over = False

    def push(self, data: bytes) -> bytes:
        data = self._waiting + data
        if self.is_over:  # another frame (RFC 8878 §3.1)
            if not data:
                return b""
            self._parts_left = _one_less(self._parts_left)
            self._zstd, self.is_over = self._new(), False
        try:
            out = self._zstd.decompress(data, MAX_PIECE_BYTES)
        except self._error:
            raise Malformed("the encoded body cannot be decoded") from None
        self.is_over = self._zstd.eof
        self._waiting = self._zstd.unused_data
        self.has_more = bool(self._waiting) if self.is_over else not self._zstd.needs_input
        return out


def _one_less(parts_left: int) -> int:
    if not parts_left:
        raise Malformed("the encoded body has too many parts")
    return parts_left - 1


# IANA's registry of content codings.
_REGISTERED = frozenset(("aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip",
                         "x-compress", "x-gzip", "zstd"))  # fmt: skip
_GZIP = 16 + zlib.MAX_WBITS
_KINDS: dict[str, Callable[[], Engine]] = {
    "gzip": lambda: _Zlib(_GZIP), "x-gzip": lambda: _Zlib(_GZIP), "deflate": _Zlib, "br": _Brotli, "zstd": _Zstd,
}  # fmt: skip
