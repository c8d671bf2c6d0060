"""Requests as hypothesis makes them: valid ones, what nearly is one, and what never was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from hostile.fuzz.stage import API, OTHER, PLAIN

HOSTS = (PLAIN, API, OTHER)
METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
ODD_METHODS = (b"TRACE", b"CONNECT", b"PRI", b"get", b"G\0T", b"", b"G" * 40, b"GET GET", b"Track")
ODD_HOSTS = (
    b"evil.test",
    b"www.example.com.",
    b"WWW.example.COM",
    b"www.example.com:80",
    b"www.example.com:443",
    b"api.example.com",
    b"api.example.com@www.example.com",
    b"www.example.com@api.example.com",
    b"[::1]",
    b"127.0.0.1",
    b"0x7f.1",
    b"2130706433",
    b"www.example.com:0x50",
    b"www.example.com:",
    b"",
    b" ",
    b"www.example.com www.example.com",
    b"www.example.com,api.example.com",
    b"www.example.com\\evil.test",
    b"xn--",
    b"\xff.example.com",
    b"www.example.com#",
    b"www.example.com/",
    b"." * 300,
    b"169.254.169.254",
)
ODD_TARGETS = (
    b"/",
    b"*",
    b"/a b",
    b"/\0",
    b"/#x",
    b"//evil.test/",
    b"https://api.example.com/",
    b"http://evil.test/",
    b"http://www.example.com/%2e%2e/",
    b"api.example.com:443",
    b"http:/x",
    b"/?\xff",
    b"/" + b"x" * 70_000,
    b"http://www.example.com@evil.test/",
    b"http://evil.test@www.example.com/",
    b"/..;/x",
    b"http://www.example.com:99999/",
    b"ftp://www.example.com/",
    b"/\rX",
    b"http://[::1/",
)
ODD_LINES = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 0x5",
    b"Content-Length:",
    b"Content-Length: 18446744073709551617",
    b"Content_Length: 5",
    b"Content-Length : 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding:\r\n chunked",
    b"transfer-encoding: CHUNKED",
    b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding : chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: ,chunked",
    b"Host: evil.test",
    b"Host: www.example.com",
    b"host: api.example.com",
    b"Host:",
    b" Host: evil.test",
    b"X-Forwarded-Host: api.example.com",
    b"Connection: close",
    b"Connection: keep-alive, host",
    b"Connection: content-length, authorization",
    b"Connection: transfer-encoding",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAAA",
    b"Expect: 100-continue",
    b"Expect: 200-ok",
    b"TE: trailers",
    b"TE: gzip",
    b"Trailer: Authorization",
    b"Proxy-Authorization: Basic eDp5",
    b"Authorization: mine",
    b"Authorization: mine\r\nAuthorization: yours",
    b"X: a\r\n b",
    b"X: a\rb",
    b"X: a\nb",
    b"X: \0",
    b"X\0: a",
    b": nothing",
    b"nothing",
    b"X: " + b"y" * 70_000,
    b"\r\n".join([b"X: y"] * 210),
    b"X: \xff\xfe",
    b"\xc3\xa4: b",
    b"Cookie: a=b",
    b"Proxy-Connection: keep-alive",
    b"Keep-Alive: 5",
    b"Max-Forwards: 0",
    b"Range: bytes=0-",
)
ODD_CHUNKS = (
    b"5;a=b\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"5\nhello\n",
    b"5\r\nhello!\r\n",
    b"5\r\nhell\r\n",
    b"\r\n",
    b"fffffffffffffffff\r\n",
    b"-1\r\n",
    b"00000005\r\nhello\r\n",
    b"0\r\nHost: evil.test\r\n\r\n",
    b"0\r\nbroken\r\n\r\n",
    b"0\r\nA: b\n\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhelloX0\r\n\r\n",
    b"5\r\nhelloXX5\r\nworld\r\n",
    b"\0",
    b"0\r\nContent-Length: 9\r\n\r\n",
    b"A" * 40,
)
NOISE = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
)

SIZES = st.lists(st.integers(1, 60), max_size=12)
WORDS = st.text("abcdefghij-0123456789", min_size=1, max_size=8).map(str.encode)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Return the lines that frame a body, and the body on the wire."""
    kind = draw(st.sampled_from(("none", "length", "chunked")))
    data = draw(st.binary(max_size=60))
    if kind == "none":
        return [], b""
    if kind == "length":
        return [b"Content-Length: %d" % len(data)], data
    pieces = [piece for piece in draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4)) if piece]
    trailers = draw(st.sampled_from((b"", b"X-Check: 1\r\n", b"X-A: b\r\nX-C:\r\n")))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return [b"Transfer-Encoding: chunked"], chunks + b"0\r\n" + trailers + b"\r\n"


@st.composite
def valid(draw: st.DrawFn, host: str, *, absolute: bool) -> bytes:
    """Return a request that may be sent to host."""
    name = host.encode()
    lines, body = draw(bodies())
    target = b"/" + draw(WORDS) + draw(st.sampled_from((b"", b"?q=1", b"/a//b?c=/../d")))
    method = draw(st.sampled_from(METHODS))
    extra = draw(st.lists(st.tuples(WORDS, WORDS).map(lambda pair: b"X-%b: %b" % pair), max_size=3))
    first = b"%b %b HTTP/1.1" % (method, (b"http://" + name if absolute else b"") + target)
    return b"\r\n".join((first, b"Host: " + name, *extra, *lines, b"", body))


WHERE = ("host", "target", "method", "version", "end", "chunks", *("line",) * 8)
VERSIONS = (b"HTTP/1.0", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"")


@st.composite
def odd(draw: st.DrawFn, host: str, *, absolute: bool) -> bytes:
    """Return a request with one thing about it, or two, that is not as it should be, or may not be."""
    odds = draw(st.lists(st.sampled_from(WHERE), min_size=1, max_size=2))

    def one(where: str, good: bytes, bad: Sequence[bytes]) -> bytes:
        return draw(st.sampled_from(bad)) if where in odds else good

    lines, body = draw(bodies())
    name = one("host", host.encode(), ODD_HOSTS)
    target = one(
        "target", (b"http://" + draw(st.sampled_from((host.encode(), name))) if absolute else b"") + b"/ok", ODD_TARGETS
    )
    method = one("method", draw(st.sampled_from(METHODS)), ODD_METHODS)
    version = one("version", b"HTTP/1.1", VERSIONS)
    fields = [b"Host: " + name, *lines, *[draw(st.sampled_from(ODD_LINES)) for where in odds if where == "line"]]
    fields = list(draw(st.permutations(fields)))
    if "chunks" in odds:
        fields, body = (
            [b"Host: " + name, b"Transfer-Encoding: chunked"],
            draw(st.sampled_from(ODD_CHUNKS)) + b"0\r\n\r\n",
        )
    end = one("end", b"\r\n", (b"\n", b"\r", b"\r\n\t", b"\r\r\n"))
    return end.join((b"%b %b %b" % (method, target, version), *fields, b"", body))


@st.composite
def spoilt(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Return bytes with some of them put in, taken out, changed, doubled or swapped."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        noise = draw(st.one_of(st.sampled_from(NOISE), st.binary(max_size=6)))
        how = draw(st.sampled_from(("in", "out", "change", "double")))
        put = {"in": noise + data[at:end], "out": b"", "change": noise, "double": data[at:end] * 2}[how]
        data = data[:at] + put + data[end:]
    return data


def streams(host: str, *, absolute: bool) -> st.SearchStrategy[bytes]:
    """Return what a hostile client may send on one connection."""
    good, bad = valid(host, absolute=absolute), odd(host, absolute=absolute)
    one = st.one_of(good, bad, spoilt(good), spoilt(bad), st.binary(max_size=80))
    return st.lists(one, min_size=1, max_size=4).map(b"".join)


def one_by_one(host: str, *, absolute: bool) -> Iterator[bytes]:
    """Yield every odd thing by itself, in a request that is valid otherwise, before another request."""
    start = b"http://" + host.encode() if absolute else b""
    name = b"Host: " + host.encode() + b"\r\n"
    after = b"GET %b/after HTTP/1.1\r\n%b\r\n" % (start, name)
    whole = b"POST %b/ok HTTP/1.1\r\n%b" % (start, name)
    for line in ODD_LINES:
        yield whole + line + b"\r\n\r\nhello" + after
        yield whole + line + b"\r\nContent-Length: 5\r\n\r\nhello" + after
        yield whole + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + after
    for chunk in ODD_CHUNKS:
        yield whole + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n" + after
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r"):
        yield (whole + b"Content-Length: 5\r\n\r\nhello" + after).replace(b"\r\n", end)
        yield whole.removesuffix(b"\r\n") + end + b"Content-Length: 5\r\n\r\nhello" + after
    for first in _first_lines(start):
        yield first + b"\r\n" + name + b"\r\n" + after
    for named in ODD_HOSTS:
        yield b"GET %b/ok HTTP/1.1\r\nHost: %b\r\n\r\n" % (start, named) + after
        yield b"GET http://%b/ok HTTP/1.1\r\nHost: %b\r\n\r\n" % (named, named) + after


def _first_lines(start: bytes) -> Iterator[bytes]:
    for target in ODD_TARGETS:
        yield b"GET %b HTTP/1.1" % target
    for method in ODD_METHODS:
        yield b"%b %b/ok HTTP/1.1" % (method, start)
    for version in VERSIONS:
        yield b"GET %b/ok %b" % (start, version)
