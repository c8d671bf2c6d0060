"""What may be dialled, decided on the resolved address and never on a spelling.

Public unicast only; allow_cidrs opens more, metadata services never. IPv6 forms that carry an IPv4 address are judged
by the address they carry.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        # AWS, GCP, Azure and most others · AWS over IPv6 · Alibaba · Oracle · Azure's agent endpoint
        ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)

# IANA's special-purpose registries (RFC 6890 and updates). Python's is_global changes between releases: not used.
_NOT_PUBLIC_V4 = tuple(
    (ipaddress.IPv4Network(cidr), what)
    for cidr, what in (
        ("0.0.0.0/8", "this network"), ("10.0.0.0/8", "private"), ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"), ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"), ("192.0.2.0/24", "documentation"), ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"), ("198.18.0.0/15", "benchmarking"), ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"), ("224.0.0.0/4", "multicast"), ("240.0.0.0/4", "reserved"),
    )
)  # fmt: skip
_NOT_PUBLIC_V6 = tuple(
    (ipaddress.IPv6Network(cidr), what)
    for cidr, what in (
        ("::1/128", "loopback"), ("::/128", "unspecified"), ("fc00::/7", "private"), ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"), ("2001::/23", "reserved"), ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
    )
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
# Compatible, mapped, translated, NAT64. 64:ff9b:1::/48 places the address as the operator likes: reserved.
_LOW_32_BITS = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
_LOOPBACK_V6 = ipaddress.IPv6Address("::1")
_UNSPECIFIED_V6 = ipaddress.IPv6Address("::")


def refusal(address: str, allow: Iterable[IPNetwork] = ()) -> str | None:
    """Return why address may not be dialled, fit for the client, or None when it may.

    address: what a resolver or a pin gave, no port. allow: the ranges of `upstream.allow_cidrs`.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"{address!r} is no address"
    if getattr(parsed, "scope_id", None):
        return f"{address} has a zone"
    carried = unwrapped(parsed)
    if any(each in METADATA for each in (parsed, *carried)):
        return f"{address} is a metadata service"
    ranges = tuple(allow)
    for each in carried or (parsed,):
        if (what := _kind(each)) is not None and not _is_in(each, ranges) and not _is_in(parsed, ranges):
            return f"{address} is a {what} address"
    return None


def is_metadata(address: str) -> bool:
    """Whether address is a metadata service in any disguise: refused even when pinned or in allow_cidrs."""
    parsed = ipaddress.ip_address(address)
    return any(each in METADATA for each in (parsed, *unwrapped(parsed)))


def unwrapped(address: IPAddress) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses that an IPv6 one carries (mapped, compatible, NAT64, 6to4, Teredo), else nothing."""
    if not isinstance(address, ipaddress.IPv6Address) or address in (_LOOPBACK_V6, _UNSPECIFIED_V6):
        return ()
    bits = int(address)
    if address in _TEREDO:  # RFC 4380 §4: the server, and the client with its bits turned over
        return _v4(bits >> 64), _v4(~bits)
    if address in _SIX_TO_FOUR:  # RFC 3056 §2
        return (_v4(bits >> 80),)
    if any(address in network for network in _LOW_32_BITS):  # RFC 4291 §2.5.5, RFC 6052 §2.1, RFC 7915
        return (_v4(bits),)
    return ()


def _v4(bits: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bits & 0xFFFF_FFFF)


def _kind(address: IPAddress) -> str | None:
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _NOT_PUBLIC_V4 if address in network), None)
    what = next((what for network, what in _NOT_PUBLIC_V6 if address in network), None)
    return what if what is not None or address in _GLOBAL_V6 else "reserved"


def _is_in(address: IPAddress, ranges: tuple[IPNetwork, ...]) -> bool:
    return any(address.version == network.version and address in network for network in ranges)
