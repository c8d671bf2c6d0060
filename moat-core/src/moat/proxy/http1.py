"""HTTP/1.1 heads, read strictly and written plainly (RFC 9112). Bytes in, values out; bodies are in `bodies`.

What two readers could understand differently is refused, never repaired: lengths that conflict, folded lines, bare LF,
names or values with characters that do not belong there, a second Host.

    buffer ──▶ read_request ──▶ Request(method, target, headers, framing) ──▶ … ──▶ render_request ──▶ bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from moat.api.http import Headers, ResponseHead

MAX_HEAD_BYTES = 65_536  # above what servers accept (8 to 48 KiB), far below what hurts
MAX_FIELDS = 200

_NAME = r"[!#$%&'*+\-.^`|~0-9A-Za-z"  # RFC 9110 §5.6.2 without `_`, and without the closing bracket
_REQUEST_LINE = re.compile(_NAME + r"_]{1,32} ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_VALUE = r"[ \t]*([\t\x20-\x7e\x80-\xff]*)"
# CGI servers read `Content_Length` as Content-Length, so a client's name with `_` could mean something else upstream.
_REQUEST_FIELD = re.compile("(" + _NAME + "]+):" + _VALUE)
_RESPONSE_FIELD = re.compile("(" + _NAME + "_]+):" + _VALUE)
_DIGITS = re.compile(r"[0-9]{1,18}")
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate",
                         "te", "transfer-encoding", "upgrade", "http2-settings"))  # fmt: skip
_NEVER_LISTED = frozenset(
    ("host", "content-length", "authorization", "cookie")
)  # a Connection header cannot drop these


class Malformed(ValueError):
    """The peer broke the framing; its connection cannot be used any more. The text says which rule, never the bytes."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body ends. length: for "length" only."""

    kind: Literal["none", "length", "chunked", "close"]
    length: int = 0


NO_BODY = Framing("none")
CHUNKED = Framing("chunked")
UNTIL_CLOSE = Framing("close")


@dataclass(frozen=True, slots=True)
class Request:
    """A request head as it came. fields: the same headers by lower-case name. host: the Host value, "" if none."""

    method: str
    target: str
    version: str
    headers: Headers
    framing: Framing = NO_BODY
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The one Host value, "" when there is none (HTTP/1.0 only)."""
        return self.fields.get("host", ("",))[0]

    @property
    def keeps_alive(self) -> bool:
        """Whether the client's connection may carry another request."""
        return self.version == "1.1" and "close" not in listed(self.fields, "connection")


@dataclass(frozen=True, slots=True)
class Response:
    """A response head as it came."""

    head: ResponseHead
    framing: Framing
    fields: Mapping[str, tuple[str, ...]]

    @property
    def keeps_alive(self) -> bool:
        """Whether the upstream's connection may carry another request after the body."""
        is_open = self.head.version == "1.1" and self.framing.kind != "close"
        return is_open and "close" not in listed(self.fields, "connection")


def take_head(buffer: bytearray) -> str | None:
    """Cut a whole head off the buffer's front and return it as text, or None while it is not all there."""
    while buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: empty lines before a request are tolerated
        del buffer[:2]
    end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(buffer) >= MAX_HEAD_BYTES:
            raise Malformed("the head is longer than 64 KiB")
        # The last line only: each was that once, or is read with the whole. All of them with each byte cost too much.
        if (last := buffer.rfind(b"\n")) >= 0 and buffer[last - 1 : last] != b"\r":
            raise Malformed("a line ends without CR LF")
        return None
    text = buffer[:end].decode("latin-1")
    del buffer[: end + 4]
    return text


def read_request(text: str) -> Request:
    """Return the request that a head holds, the same object for the same bytes in a row. Raises Malformed."""
    return _known_request(text) if len(text) <= _REMEMBERED_CHARS else _read_request(text)


def _read_request(text: str) -> Request:
    first, *lines = text.split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Malformed("the request line is not HTTP/1.1's")
    method, target, version = first[: line.start(1) - 1], line[1], f"1.{line[2]}"
    headers, fields = _fields(lines, _REQUEST_FIELD)
    hosts = fields.get("host", ())
    if len(hosts) > 1 or (version == "1.1" and (not hosts or not hosts[0])):
        raise Malformed("a request has exactly one Host")
    return Request(method, target, version, headers, _request_framing(fields, version), fields)


def read_response(text: str, method: str) -> Response:
    """Return the response that a head holds, to a request with this method; see read_request. Raises Malformed."""
    return _known_response(text, method) if len(text) <= _REMEMBERED_CHARS else _read_response(text, method)


def _read_response(text: str, method: str) -> Response:
    first, *lines = text.split("\r\n")
    line = _STATUS_LINE.fullmatch(first)
    if line is None:
        raise Malformed("the status line is not HTTP/1.1's")
    headers, fields = _fields(lines, _RESPONSE_FIELD)
    status = int(line[2])
    head = ResponseHead(status, true_headers(status, headers), line[3] or "", f"1.{line[1]}")
    return Response(head, _response_framing(head, fields, method), fields)


def true_headers(status: int, headers: Headers) -> Headers:
    """Return headers without a length where status has no body (RFC 9110 §8.6): some clients wait for one."""
    return headers.without("content-length") if status < 200 or status == 204 else headers


# Clients poll and APIs answer alike: values that cannot change are read once. Bounded to about a megabyte each.
_REMEMBERED_CHARS = 2048
_known_request = lru_cache(maxsize=256)(_read_request)
_known_response = lru_cache(maxsize=256)(_read_response)


def listed(fields: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    """Return the lower-case members of a comma-separated field."""
    values = fields.get(name)
    return _members(values) if values else ()


@lru_cache(maxsize=256)
def _members(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in ",".join(values).split(","))


def end_to_end(headers: Headers, fields: Mapping[str, tuple[str, ...]], *drop: str) -> list[tuple[str, str]]:
    """Return the fields that are for the other end (RFC 9110 §7.6.1), without those named in drop."""
    named = {name for name in listed(fields, "connection") if name not in _NEVER_LISTED}
    unwanted = _HOP_BY_HOP | named | set(drop)
    kept = [pair for pair in headers.items if pair[0].lower() not in unwanted]
    if "trailers" in listed(fields, "te"):
        kept.append(("TE", "trailers"))
    return kept


def render_request(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a request head as bytes."""
    return _render(f"{method} {target} HTTP/1.1\r\n", headers)


def render_response(status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a response head as bytes."""
    return _render(f"HTTP/1.1 {status} {reason}\r\n", headers)


def read_fields(lines: list[str]) -> list[tuple[str, str]]:
    """Return the fields of a trailer section. Raises Malformed."""
    return list(_fields(lines, _RESPONSE_FIELD)[0].items)


def _render(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{first}{lines}\r\n".encode("latin-1")


def _fields(lines: list[str], pattern: re.Pattern[str]) -> tuple[Headers, dict[str, tuple[str, ...]]]:
    if len(lines) > MAX_FIELDS:
        raise Malformed("more than 200 header fields")
    pairs: list[tuple[str, str]] = []
    index: dict[str, tuple[str, ...]] = {}
    for line in lines:
        found = pattern.fullmatch(line)
        if found is None:
            raise Malformed("a header field has characters that cannot stand there")
        name, value = found[1], found[2].rstrip(" \t")
        pairs.append((name, value))
        key = name.lower()
        index[key] = (*index.get(key, ()), value)
    return Headers(tuple(pairs)), index


def _request_framing(fields: Mapping[str, tuple[str, ...]], version: str) -> Framing:
    if "transfer-encoding" in fields and version == "1.0":
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    return _declared(fields) or NO_BODY


def _response_framing(head: ResponseHead, fields: Mapping[str, tuple[str, ...]], method: str) -> Framing:
    """Decide as RFC 9112 §6.3 does, in its order."""
    declared = _declared(fields)
    if method == "HEAD" or head.status < 200 or head.status in (204, 304):
        return NO_BODY
    return declared or UNTIL_CLOSE


def _declared(fields: Mapping[str, tuple[str, ...]]) -> Framing | None:
    encodings, lengths = fields.get("transfer-encoding"), fields.get("content-length")
    if encodings is not None:
        if lengths is not None or len(encodings) > 1 or encodings[0].lower() != "chunked":
            raise Malformed("Transfer-Encoding must be chunked, once, and without Content-Length")
        return CHUNKED
    if lengths is None:
        return None
    if len(lengths) > 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise Malformed("Content-Length must be one number")
    return Framing("length", int(lengths[0]))
