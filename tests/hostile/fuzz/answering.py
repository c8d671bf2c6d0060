"""Answers as hypothesis makes them: valid, odd, and noise. `%FOR%` in them becomes the path that was asked."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from hypothesis import strategies as st

from hostile.fuzz.stage import SECRET
from hostile.fuzz.traffic import NOISE, ODD_CHUNKS, WORDS, bodies, spoilt

MARK = b"X-For: %FOR%"
STATUSES = (
    b"200 OK",
    b"200 OK",
    b"204 No Content",
    b"304 Not Modified",
    b"404 Not Found",
    b"206 Partial Content",
    b"500 \xe4rger",
    b"100 Continue",
    b"103 Early Hints",
    b"101 Switching Protocols",
    b"407 Proxy",
    b"205 Reset",
)
ODD_STATUSES = (
    b"200",
    b"200 ",
    b"099 Low",
    b"600 High",
    b"0200 OK",
    b"20 OK",
    b"2000 OK",
    b"abc",
    b"",
    b"200 O\0K",
    b"200 OK\rX: y",
    b"-200 OK",
    b"200\tOK",
    b"\xb2\xb0\xb0 OK",
    b"199 x",
    b"999 y",
)
ODD_LINES = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 0x5",
    b"Content-Length:",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content_Length: 7",
    b"Content-Length : 5",
    b"Content-Length: 18446744073709551617",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: x-for, content-length",
    b"Connection: transfer-encoding",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Keep-Alive: 5",
    b"Proxy-Authenticate: Basic",
    b'Alt-Svc: h3=":443"',
    b"Trailer: Content-Length",
    b"Content-Encoding: gzip",
    b"Content-Encoding: gzip, gzip",
    b"Content-Encoding: x",
    b"X: a\r\n b",
    b"X: a\rb",
    b"X: a\nb",
    b"X: \0",
    b": nothing",
    b"nothing",
    b"X : y",
    b"Set-Cookie: a=b",
    b"X: " + b"y" * 70_000,
    b"\r\n".join([b"X: y"] * 210),
    b"X-Said: Bearer " + SECRET.encode(),
)
SMUGGLED = b"HTTP/1.1 200 OK\r\nX-For: smuggled\r\nContent-Length: 8\r\n\r\nsmuggled"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return an answer that is valid, to a GET at least."""
    lines, body = draw(bodies())
    status = draw(st.sampled_from(STATUSES[:7]))
    if not lines and draw(st.booleans()):
        body = draw(WORDS)  # until the connection ends
    if status[:3] in (b"204", b"304"):
        lines, body = [], b""
    if lines and lines[0].startswith(b"Content-Length") and draw(st.booleans()):
        body = gzip.compress(b"data: " + SECRET.encode() + body)
        lines = [b"Content-Length: %d" % len(body), b"Content-Encoding: gzip"]
    return b"\r\n".join((b"HTTP/1.1 " + status, MARK, *lines, b"", body))


WHERE = ("status", "version", "end", "chunks", *("line",) * 6)


@st.composite
def odd_answers(draw: st.DrawFn) -> bytes:
    """Return an answer with one thing about it, or two, that is not as it should be, or may not be."""
    odds = draw(st.lists(st.sampled_from(WHERE), min_size=1, max_size=2))
    lines, body = draw(bodies())
    status = draw(st.sampled_from((*STATUSES, *(ODD_STATUSES if "status" in odds else ()))))
    version = (
        draw(st.sampled_from((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"ICY", b"")))
        if "version" in odds
        else b"HTTP/1.1"
    )
    fields = [MARK, *lines, *[draw(st.sampled_from(ODD_LINES)) for where in odds if where == "line"]]
    if "chunks" in odds:
        fields, body = [MARK, b"Transfer-Encoding: chunked"], draw(st.sampled_from(ODD_CHUNKS)) + b"0\r\n\r\n"
    end: bytes = draw(st.sampled_from((b"\n", b"\r"))) if "end" in odds else b"\r\n"
    return end.join((version + b" " + status, *draw(st.permutations(fields)), b"", body))


def said() -> st.SearchStrategy[list[bytes]]:
    """Return what a hostile upstream may say to one request; an empty piece ends its connection."""
    one = st.one_of(
        answers(),
        answers(),
        odd_answers(),
        odd_answers(),
        spoilt(answers()),
        spoilt(odd_answers()),
        st.binary(max_size=60),
        st.sampled_from(NOISE),
        st.just(SMUGGLED),
    )
    whole = st.lists(one, min_size=1, max_size=3).map(b"".join)
    return st.tuples(whole, st.booleans()).map(lambda pair: [pair[0], b""] if pair[1] else [pair[0]])


def one_by_one() -> Iterator[bytes]:
    """Yield every odd thing by itself, in an answer that is valid otherwise."""
    start = b"HTTP/1.1 200 OK\r\n" + MARK + b"\r\n"
    for line in ODD_LINES:
        yield start + line + b"\r\n\r\nhello"
        yield start + line + b"\r\nContent-Length: 5\r\n\r\nhello"
        yield start + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for chunk in ODD_CHUNKS:
        yield start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    for status in (*STATUSES, *ODD_STATUSES):
        for framing in (b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
            yield b"HTTP/1.1 " + status + b"\r\n" + MARK + b"\r\n" + framing + b"\r\n"
            yield b"HTTP/1.1 " + status + b"\r\n" + MARK + b"\r\n" + framing + b"\r\nhello" + SMUGGLED
    for end in (b"\n", b"\r", b"\r\r\n"):
        yield start.replace(b"\r\n", end) + end
    yield from (
        start + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED,
        start + b"Content-Length: 50\r\n\r\nhello",
        SMUGGLED * 2,
    )
