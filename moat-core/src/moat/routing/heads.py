"""Heads of HTTP/1.1 on their way through: read strictly, told on with `Connection: close`. Pure.

One connection carries one request: nothing that comes after it could be meant for somebody else. What is upgraded goes
on as bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD_BYTES = 65_536
Fields = tuple[tuple[str, str], ...]

_START = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
_STATUS = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: (.*))?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OF_THIS_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "upgrade"))
_TOLD_BY_US = frozenset(("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"))


class BadHead(ValueError):
    """What came is no head that can be read in one way only."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's head. length: of the body, None for chunks. upgrade: the protocol it wants to change to, or ""."""

    method: str
    target: str
    host: str
    fields: Fields = field(repr=False)
    length: int | None = 0
    upgrade: str = ""

    def wants(self, kind: str) -> bool:
        """Whether the client asked for answers of this media type, by name."""
        return any(kind in value.lower() for name, value in self.fields if name.lower() == "accept")


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's head."""

    status: int
    reason: str
    fields: Fields = field(repr=False)


def read_request(data: bytes) -> Asked:
    """Return the head of a request, which ends with its empty line. Raises BadHead."""
    start, fields = _read(data)
    match = _START.fullmatch(start)
    if match is None:
        raise BadHead("this is no HTTP/1.1 request")
    if not match[2].startswith("/") and match[2] != "*":
        raise BadHead("this is no proxy: ask for a path")
    hosts = _values(fields, "host")
    if len(hosts) != 1:
        raise BadHead("a request needs exactly one Host")
    return Asked(match[1], match[2], hosts[0], fields, _length(fields), _upgrade(fields))


def request_up(asked: Asked, scheme: str) -> bytes:
    """Return the head as the run gets it."""
    lines = [f"{asked.method} {asked.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in asked.fields if name.lower() not in _OF_THIS_HOP | _TOLD_BY_US]
    lines += [f"X-Forwarded-Host: {asked.host}", f"X-Forwarded-Proto: {scheme}", "X-Forwarded-For: 127.0.0.1"]
    lines += ["Connection: Upgrade", f"Upgrade: {asked.upgrade}"] if asked.upgrade else ["Connection: close"]
    return _written(lines)


def read_answer(data: bytes) -> Answered:
    """Return the head of an answer. Raises BadHead."""
    start, fields = _read(data)
    match = _STATUS.fullmatch(start)
    if match is None:
        raise BadHead("this is no HTTP/1.1 answer")
    return Answered(int(match[1]), match[2] or "", fields)


def answer_down(answered: Answered) -> bytes:
    """Return the head as the client gets it."""
    lines = [f"HTTP/1.1 {answered.status} {answered.reason}"]
    dropped = {"strict-transport-security"}  # it would keep http:// from ever working again for this name
    if answered.status >= 200:
        dropped |= _OF_THIS_HOP
    lines += [f"{name}: {value}" for name, value in answered.fields if name.lower() not in dropped]
    if answered.status >= 200:
        lines.append("Connection: close")
    return _written(lines)


def answer_of_ours(status: int, kind: str, text: str, method: str = "GET") -> bytes:
    """Return a whole answer of our own; to HEAD without its body."""
    body = text.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return _written(lines) + (b"" if method == "HEAD" else body)


def _read(data: bytes) -> tuple[str, Fields]:
    text = data.decode("latin-1")
    if not text.endswith("\r\n\r\n") or "\0" in text:
        raise BadHead("this is no head")
    start, *lines = text[:-4].split("\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or _NAME.fullmatch(name) is None or "\r" in line or "\n" in line:
            raise BadHead("a header field is malformed")
        fields.append((name, value.strip(" \t")))
    return start, tuple(fields)


def _length(fields: Fields) -> int | None:
    """Return the length of a request's body, None for chunks. Raises BadHead where two are told."""
    codings, lengths = _values(fields, "transfer-encoding"), _values(fields, "content-length")
    if codings:
        if lengths or [each.lower() for each in codings] != ["chunked"]:
            raise BadHead("the length of the body is told in two ways")
        return None
    if len(set(lengths)) > 1 or not all(each.isascii() and each.isdecimal() and len(each) < 19 for each in lengths):
        raise BadHead("the length of the body is no number")
    return int(lengths[0]) if lengths else 0


def _upgrade(fields: Fields) -> str:
    wants = any(
        "upgrade" in [part.strip().lower() for part in each.split(",")] for each in _values(fields, "connection")
    )
    offered = _values(fields, "upgrade")
    return offered[0] if wants and len(offered) == 1 else ""


def _values(fields: Fields, wanted: str) -> list[str]:
    return [value for name, value in fields if name.lower() == wanted]


def _written(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
