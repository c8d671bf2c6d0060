"""One canonical Authority per request, whatever spelling it came in: CONNECT target, absolute form, Host, SNI, pattern.

Refuses instead of repairing: two readers of one odd spelling must not be able to disagree. Never resolves, never dials.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

from moat.api.http import DEFAULT_PORTS, Authority

MAX_NAME_CHARS = 253  # RFC 1035 §2.3.4, without the root's dot
_ASCII_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # `_` is no host name's, but in use (RFC 8552)
_PORT = re.compile(r"[0-9]{1,5}")
_ADDRESS_LIKE = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_DISGUISED_DOTS = frozenset("\u3002\uff0e\uff61")
_OUTSIDE_AUTHORITY = frozenset("/\\?#@% \t\r\n\0")


class AuthorityRefused(ValueError):
    """A spelling that names no host; the text says why and is fit for the client."""


@lru_cache(maxsize=4096)
def canonical_host(text: str) -> str:
    """Return the one spelling of a host: lower-case A-labels without a final dot, or an IP literal without brackets.

    text: a DNS name (Unicode allowed, IDNA 2008), an IPv4 address, or an IPv6 address with or without brackets.
    Raises AuthorityRefused.
    """
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    if text.isascii():
        return _ascii_name(text)
    return _unicode_name(text)


@lru_cache(maxsize=4096)
def from_connect(target: str) -> Authority:
    """Return the authority of a CONNECT target, `host:port` (RFC 9110 §9.3.6). Port 80 means http, any other https."""
    host, port = _split(target)
    if port is None:
        raise AuthorityRefused("a CONNECT target needs a port")
    return Authority("http" if port == DEFAULT_PORTS["http"] else "https", host, port)


@lru_cache(maxsize=4096)
def from_host(value: str, scheme: str) -> Authority:
    """Return the authority that a Host header (or a pattern's `host[:port]`) names under scheme."""
    host, port = _split(value)
    return Authority(scheme, host, DEFAULT_PORTS[scheme] if port is None else port)


def from_absolute(target: str) -> tuple[Authority, str]:
    """Split an absolute-form target into its authority and the origin-form rest, at least `/`."""
    scheme, separator, rest = target.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise AuthorityRefused("the request target is neither http:// nor https://")
    cut = min((at for at in (rest.find("/"), rest.find("?"), rest.find("#")) if at >= 0), default=len(rest))
    if "#" in rest:
        raise AuthorityRefused("the request target has a fragment")
    path = rest[cut:]
    return from_host(rest[:cut], scheme), path if path.startswith("/") else f"/{path}"


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP literal."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _split(text: str) -> tuple[str, int | None]:
    if bad := _OUTSIDE_AUTHORITY & set(text):
        raise AuthorityRefused(f"{min(bad)!r} cannot stand in a host")
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AuthorityRefused("an IPv6 address needs its closing bracket")
        return canonical_host(host + bracket), _port(rest[1:]) if rest else None
    host, colon, port = text.partition(":")
    if ":" in port:
        raise AuthorityRefused("an IPv6 address needs brackets")
    return canonical_host(host), _port(port) if colon else None


def _port(text: str) -> int:
    if _PORT.fullmatch(text) is None or not 0 < int(text) < 65_536:
        raise AuthorityRefused(f"{text[:8]!r} is no port")
    return int(text)


def _ipv6(text: str) -> str:
    if "%" in text:
        raise AuthorityRefused("an address with a zone is not for a proxy")
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError:
        raise AuthorityRefused("this is no IPv6 address") from None


def _ascii_name(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not name or len(name) > MAX_NAME_CHARS:
        raise AuthorityRefused("a host has 1 to 253 characters")
    labels = name.split(".")
    if _ADDRESS_LIKE.fullmatch(labels[-1]):
        return _ipv4(name)
    for label in labels:
        if _ASCII_LABEL.fullmatch(label) is None:
            raise AuthorityRefused(f"{label[:63]!r} is no part of a host name")
        if label[2:4] == "--":
            _check_a_label(label)
    return name


def _ipv4(text: str) -> str:
    """Accept four plain decimal numbers only: what else looks like an address is read differently by every resolver."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise AuthorityRefused("this is no IPv4 address in four decimal numbers") from None


def _check_a_label(label: str) -> None:
    try:
        encoded = idna.alabel(idna.ulabel(label)).decode()
    except UnicodeError:
        encoded = ""
    if encoded != label:
        raise AuthorityRefused(f"{label!r} is no valid internationalised name")


def _unicode_name(text: str) -> str:
    if _DISGUISED_DOTS & set(text):
        raise AuthorityRefused("a dot that is not ASCII")
    try:
        return _ascii_name(idna.encode(text.lower()).decode())
    except UnicodeError:
        raise AuthorityRefused("this is no valid internationalised name (IDNA 2008)") from None
