"""HTTP/2 field sections, read strictly into the values of HTTP/1.1, and those values as HTTP/2 fields. No I/O.

    (name, value) pairs ──▶ read_request ──▶ Request ──▶ flow.judge ──▶ Passage ──▶ request_fields ──▶ pairs

A field that could mean something else behind a translation to HTTP/1.1 is Malformed, and its stream is reset (RFC 9113
§8.1.1): upper case, `:` or CR LF in names, connection-specific fields, pseudo-fields where they do not belong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple

from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.net.authority import AuthorityRefused, from_host
from moat.proxy.bodies import NOT_IN_TRAILERS
from moat.proxy.http1 import CHUNKED, MAX_FIELDS, NO_BODY, Framing, Malformed, Request, Response, true_headers

Pairs: TypeAlias = Iterable[tuple[bytes, bytes]]
Fields: TypeAlias = Mapping[str, tuple[str, ...]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.6.2, lower case only (RFC 9113 §8.2.1)
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_TARGET = re.compile(r"/[\x21-\x7e]*|\*")
_STATUS = re.compile(r"[1-5][0-9]{2}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_OF_CONNECTIONS = frozenset(("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade",
                             "http2-settings"))  # fmt: skip
_REQUEST = frozenset((":method", ":scheme", ":authority", ":path"))
_RESPONSE = frozenset((":status",))
_SECRET = frozenset(("authorization", "cookie", "proxy-authorization"))  # RFC 7541 §7.1.3


def read_request(pairs: Pairs, *, is_over: bool, scheme: str = "https") -> Request:
    """Return the request that a field section holds. is_over: no body follows. Raises Malformed."""
    pseudo, headers, fields = _read(pairs, _REQUEST)
    method = pseudo.get(":method", "")
    if _METHOD.fullmatch(method) is None:
        raise Malformed("an HTTP/2 request has one :method, a token")
    host = _host(pseudo.get(":authority", ""), fields)
    if method == "CONNECT":  # RFC 9113 §8.5; refused later, with a status
        if ":scheme" in pseudo or ":path" in pseudo:
            raise Malformed("CONNECT has neither :scheme nor :path")
        target = host
    else:
        target = pseudo.get(":path", "")
        if pseudo.get(":scheme") != scheme or _TARGET.fullmatch(target) is None:
            raise Malformed("an HTTP/2 request has one :path, and its :scheme is that of the connection")
    _check_request(fields)
    headers, fields = _with_one_cookie(headers, fields)
    return Request(method, target, "2", Headers(tuple(headers)), _framing(fields, is_over), {**fields, "host": (host,)})


def read_response(pairs: Pairs, method: str, *, is_over: bool) -> Response:
    """Return the response that a field section holds, to a request with this method. Raises Malformed."""
    pseudo, headers, fields = _read(pairs, _RESPONSE)
    text = pseudo.get(":status", "")
    if _STATUS.fullmatch(text) is None or text == "101":  # RFC 9113 §8.6
        raise Malformed("an HTTP/2 response has one :status, which is not 101")
    status = int(text)
    if status < 200 and is_over:
        raise Malformed("an interim response ends the stream")
    if method == "HEAD" or status < 200 or status in (204, 304):
        _check_length(fields)  # a client of HTTP/1.1 is told it as it is
        framing = NO_BODY
    else:
        framing = _framing(fields, is_over)
    return Response(ResponseHead(status, true_headers(status, Headers(tuple(headers))), "", "2"), framing, fields)


def read_trailers(pairs: Pairs) -> list[tuple[str, str]]:
    """Return the fields of a trailer section, without those that cannot stand there. Raises Malformed."""
    _, headers, _ = _read(pairs, frozenset())
    return [pair for pair in headers if pair[0] not in NOT_IN_TRAILERS]


def request_fields(
    head: RequestHead, authority: Authority, framing: Framing, known: Collection[tuple[str, str]]
) -> list[HeaderTuple]:
    """Return a request as HTTP/2 fields. known: what the client sent; all else is kept out of compression tables."""
    pairs = [(":method", head.method), (":scheme", authority.scheme), (":authority", str(authority)),
             (":path", head.target)]  # fmt: skip
    lower = ((name.lower(), value) for name, value in head.headers.items)
    own = [pair for pair in lower if pair[0] not in _OF_CONNECTIONS]
    if framing.kind == "length":
        own.append(("content-length", str(framing.length)))
    seen = frozenset((name.lower(), value) for name, value in known)
    return [*map(_field, pairs), *(_field(pair, secret=pair not in seen) for pair in own)]


def response_fields(status: int, headers: Iterable[tuple[str, str]]) -> list[HeaderTuple]:
    """Return a response head as HTTP/2 fields."""
    return [_field((":status", str(status))), *plain_fields(headers)]


def plain_fields(headers: Iterable[tuple[str, str]]) -> list[HeaderTuple]:
    """Return fields, of a trailer section for example, as HTTP/2 wants them."""
    return [_field((name.lower(), value)) for name, value in headers]


def is_grpc(fields: Fields) -> bool:
    """Whether a request with these fields speaks gRPC, whose clients read trailers and no bodies."""
    return fields.get("content-type", ("",))[0].startswith("application/grpc")


def _field(pair: tuple[str, str], *, secret: bool = False) -> HeaderTuple:
    kind = NeverIndexedHeaderTuple if secret or pair[0] in _SECRET else HeaderTuple
    return kind(pair[0].encode("latin-1"), pair[1].encode("latin-1"))


def _read(
    pairs: Pairs, allowed: frozenset[str]
) -> tuple[dict[str, str], list[tuple[str, str]], dict[str, tuple[str, ...]]]:
    """Return pseudo-fields, fields in order, and fields by name."""
    pseudo: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    fields: dict[str, tuple[str, ...]] = {}
    for raw_name, raw_value in pairs:
        if _VALUE.fullmatch(raw_value) is None:
            raise Malformed("a field's value has characters that cannot stand there")
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.startswith(":"):
            if headers or name in pseudo or name not in allowed:
                raise Malformed("a pseudo-field that is unknown, late or there twice")
            pseudo[name] = value
            continue
        if _NAME.fullmatch(raw_name) is None or name in _OF_CONNECTIONS:
            raise Malformed("a field's name is none that HTTP/2 has")
        headers.append((name, value))
        fields[name] = (*fields.get(name, ()), value)
    if len(headers) > MAX_FIELDS:
        raise Malformed("more than 200 header fields")
    return pseudo, headers, fields


def _host(authority: str, fields: Fields) -> str:
    """Return the one host that :authority and Host agree on (RFC 9113 §8.3.1)."""
    hosts = fields.get("host", ())
    host = authority or (hosts[0] if hosts else "")
    if not host or len(hosts) > 1:
        raise Malformed("an HTTP/2 request names its host once")
    if hosts and hosts[0] != host and not _same(hosts[0], host):
        raise Malformed(":authority and Host name different hosts")
    return host


def _same(one: str, other: str) -> bool:
    try:
        return from_host(one, "https") == from_host(other, "https")
    except AuthorityRefused:
        return False


def _check_request(fields: Fields) -> None:
    if fields.get("te", ("trailers",)) != ("trailers",):
        raise Malformed("TE can only be trailers in HTTP/2")
    # CGI servers read `content_length` as Content-Length; gRPC has no CGI, and names with `_` are ordinary there.
    if any("_" in name for name in fields) and not is_grpc(fields):
        raise Malformed("a header field has characters that cannot stand there")


def _with_one_cookie(
    headers: list[tuple[str, str]], fields: dict[str, tuple[str, ...]]
) -> tuple[list[tuple[str, str]], dict[str, tuple[str, ...]]]:
    """Join the crumbs into which HTTP/2 may cut the Cookie field (RFC 9113 §8.2.3)."""
    crumbs = fields.get("cookie", ())
    if len(crumbs) < 2:
        return headers, fields
    whole = "; ".join(crumbs)
    return [*(pair for pair in headers if pair[0] != "cookie"), ("cookie", whole)], {**fields, "cookie": (whole,)}


def _framing(fields: Fields, is_over: bool) -> Framing:
    """Return how a body ends: what has no length ends where the stream says so, as a chunked body does."""
    _check_length(fields)
    lengths = fields.get("content-length", ())
    if is_over:
        if lengths and int(lengths[0]) > 0:
            raise Malformed("the body is shorter than its Content-Length")
        return NO_BODY
    return Framing("length", int(lengths[0])) if lengths else CHUNKED


def _check_length(fields: Fields) -> None:
    lengths = fields.get("content-length", ())
    if len(lengths) > 1 or (lengths and _DIGITS.fullmatch(lengths[0]) is None):
        raise Malformed("Content-Length must be one number")
