"""HTTP/2 as hypothesis makes it: frames that are valid, nearly so, or noise, in an order that makes sense or none."""

from __future__ import annotations

from hpack import Encoder
from hypothesis import strategies as st

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
Fields = list[tuple[str, str]]
GOOD: Fields = [(":method", "GET"), (":scheme", "https"), (":authority", "other.example.com"), (":path", "/ok")]
ODD_FIELDS: tuple[tuple[str, str], ...] = (
    (":method", "CONNECT"),
    (":method", "TRACE"),
    (":method", "GET"),
    (":path", "*"),
    (":path", "/a b"),
    (":path", ""),
    (":path", "/#x"),
    (":path", "https://evil.test/"),
    (":path", "/\r\nX: y"),
    (":scheme", "http"),
    (":scheme", ""),
    (":authority", "evil.test"),
    (":authority", "api.example.com"),
    (":authority", ""),
    (":status", "200"),
    (":odd", "x"),
    ("host", "evil.test"),
    ("host", "other.example.com"),
    ("Host", "x"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("te", "gzip"),
    ("te", "trailers"),
    ("upgrade", "websocket"),
    ("content-length", "5"),
    ("content-length", "-1"),
    ("content-length", "05"),
    ("content-length", "5, 5"),
    ("x\r\ny", "z"),
    ("x", "a\r\nb: c"),
    ("x", "\0"),
    ("x", " y"),
    ("", "z"),
    ("x y", "z"),
    ("x:", "z"),
    ("x_y", "z"),
    ("cookie", "a=b"),
    ("expect", "100-continue"),
    ("authorization", "mine"),
    ("x", "y" * 20_000),
    ("proxy-authorization", "Basic eDp5"),
    ("trailer", "authorization"),
    ("content_length", "9"),
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame, whether or not it makes sense."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + (stream & 0x7FFFFFFF).to_bytes(4) + payload


def block(fields: Fields) -> bytes:
    """Return fields without compression state, so that any order of frames stays readable."""
    return Encoder().encode(
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields], huffman=False
    )


ANSWER: Fields = [(":status", "200"), ("x-for", "first")]
ODD_ANSWERS: tuple[tuple[str, str], ...] = (
    *((":status", code) for code in ("204", "304", "100", "103", "101", "099", "600", "2000", "", "abc", "200 OK")),
    (":path", "/"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("content-length", "5"),
    ("content-length", "6"),
    ("content-length", "-1"),
    ("X", "y"),
    ("x", "a\r\nb: c"),
    ("x", "\0"),
    ("", "y"),
    ("x y", "z"),
    ("x:y", "z"),
    ("grpc-status", "0"),
    ("set-cookie", "a=b"),
    ("content-encoding", "gzip"),
    ("x", "y" * 20_000),
    ("x-said", "s3cr3t-of-the-api"),
    ("alt-svc", "h3"),
)


@st.composite
def heads(draw: st.DrawFn, stream: int, good: Fields = GOOD, odds: tuple[tuple[str, str], ...] = ODD_FIELDS) -> bytes:
    """Return a field section, with things about it that may be wrong."""
    fields = list(good)
    for odd in draw(st.lists(st.sampled_from(odds), max_size=2)):
        how = draw(st.sampled_from(("add", "add", "replace", "front")))
        if how == "replace":
            fields = [pair for pair in fields if pair[0] != odd[0]]
        fields.insert(0 if how == "front" else len(fields), odd)
    data = block(fields)
    flags = draw(st.sampled_from((4, 4, 5, 5, 5, 5, 0, 1, 0x25)))
    if flags == 0x25:
        return frame(1, flags, stream, draw(st.integers(0, stream)).to_bytes(4) + b"\x10" + data)
    if flags & 4:
        return frame(1, flags, stream, data)
    at = draw(st.integers(0, len(data)))
    rest = b"" if draw(st.integers(0, 3)) == 0 else frame(9, 4, stream, data[at:])
    return frame(1, flags, stream, data[:at]) + rest


CALM = ("head",) * 6 + ("data",) * 5 + ("reset", "settings", "ping", "window", "priority")
WILD = ("any", "noise", "goodbye", "window", "settings", "data", "head")


SMALL_SETTINGS = (b"", b"\0\4\0\0\0\0", b"\0\4\xff\xff\xff\xff", b"\0\5\0\0\0\0", b"\0\2\0\0\0\2", b"\0\1\0\0\0\0")
# Each kind: its number, flags to choose from, whether it is for the connection, and payloads besides noise.
FRAMES: dict[str, tuple[int, tuple[int, ...], bool, tuple[bytes, ...]]] = {
    "data": (0, (0, 0, 1, 1, 1, 8, 9), False, (b"", b"hello")),
    "priority": (2, (0,), False, (bytes(5), b"\0\0\0\1\0")),
    "reset": (3, (0,), False, (bytes(4), b"\0\0\0\x08", b"")),
    "settings": (4, (0, 0, 1), True, SMALL_SETTINGS),
    "ping": (6, (0, 1), True, (bytes(8),)),
    "goodbye": (7, (0,), True, (bytes(8),)),
    "window": (8, (0,), False, (b"\0\0\0\1", bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")),
}


@st.composite
def frames(draw: st.DrawFn, stream: int, good: Fields = GOOD, odds: tuple[tuple[str, str], ...] = ODD_FIELDS) -> bytes:
    """Return one frame, or a few that belong together, mostly on stream."""
    is_wild = draw(st.integers(0, 7)) == 0
    stream = draw(st.sampled_from((0, 2, 7, 1_001))) if is_wild else stream
    kind = draw(st.sampled_from(WILD if is_wild else CALM))
    data = draw(st.binary(max_size=20))
    if kind == "head":
        return draw(heads(stream, good, odds))
    if kind == "noise":
        return data
    if kind == "any":
        return frame(draw(st.integers(0, 255)), draw(st.integers(0, 255)), stream, data)
    number, flags, is_for_all, payloads = FRAMES[kind]
    at = draw(st.sampled_from((0, 0, 0, stream))) if is_for_all else stream
    return frame(number, draw(st.sampled_from(flags)), at, draw(st.sampled_from((*payloads, data))))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Return what a hostile HTTP/2 client may send, after a beginning that is mostly right."""
    sent: bytes = draw(st.sampled_from((PREFACE + SETTINGS,) * 20 + (PREFACE, SETTINGS, b"", PREFACE[:10] + SETTINGS)))
    for number in range(draw(st.integers(1, 4))):
        stream = 2 * number + 1
        sent += draw(heads(stream)) if draw(st.integers(0, 5)) else b""
        sent += b"".join(draw(st.lists(frames(stream), max_size=3)))
    return sent


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return what a hostile HTTP/2 server may say to one request or two."""
    said: bytes = draw(st.sampled_from((SETTINGS,) * 20 + (b"", PREFACE + SETTINGS)))
    for stream in (1, 3)[: draw(st.integers(1, 2))]:
        said += draw(heads(stream, ANSWER, ODD_ANSWERS)) if draw(st.integers(0, 5)) else b""
        said += b"".join(draw(st.lists(frames(stream, ANSWER, ODD_ANSWERS), max_size=4)))
    return said
