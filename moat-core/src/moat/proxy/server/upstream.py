"""Dialling: a name becomes checked addresses, one of them a connection, and that a verified TLS stream.

    pin or getaddrinfo ─▶ every address judged ─▶ TCP to a judged address ─▶ TLS ≥ 1.2, the name verified

The address that was judged is the one dialled; nothing is looked up twice. A pin (`upstream.resolve`) is permission for
its name, except that metadata services are never dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from moat.api.http import Authority
from moat.net.addresses import IPNetwork, is_metadata, refusal
from moat.net.authority import AuthorityRefused, canonical_host, is_address
from moat.proxy.messages import Configure
from moat.proxy.refusal import Refusal, late, undialable, unreachable
from moat.proxy.server.stream import PlainStream, Stream, StreamBroken
from moat.proxy.server.tls import TlsStream

RESOLVE_S = 10.0  # resolvers give up after 5 s twice (resolv.conf(5))
CONNECT_S = 10.0  # per address: three SYNs are sent within 7 s
HANDSHAKE_S = 10.0  # what browsers and Go's client give it
KEEPALIVE_IDLE_S = 60  # finds peers that vanished under a silent stream

Target = tuple[str, int]


@dataclass(frozen=True, slots=True)
class DialSettings:
    """The `upstream` settings, parsed once. pins: canonical host → address and port (0: the request's)."""

    tls: ssl.SSLContext
    pins: Mapping[str, Target] = field(default_factory=dict)
    ranges: tuple[IPNetwork, ...] = ()

    @classmethod
    def of(cls, message: Configure) -> DialSettings:
        """Return settings from the daemon's message. Raises ValueError or ssl.SSLError for what cannot be used."""
        pins = {canonical_host(host): _pin(value) for host, value in message.resolve.items()}
        ranges = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in message.allow_cidrs)
        return cls(client_context(message.roots), pins, ranges)


def client_context(roots: str) -> ssl.SSLContext:
    """Return the one client context of the worker: system roots and these. Costs 20 ms, so it is made once."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if roots:
        context.load_verify_locations(cadata=roots)
    return context


async def dial(settings: DialSettings, authority: Authority, session: ssl.SSLSession | None = None) -> Stream:
    """Return a stream to authority, verified if it is https. Raises Refusal."""
    targets = await resolve(settings, authority)
    plain = await _connect(authority, targets)
    if authority.scheme == "http":
        return plain
    try:
        return await _secure(settings.tls, plain, authority, session)
    except BaseException:
        plain.abort()
        raise


async def resolve(settings: DialSettings, authority: Authority) -> list[Target]:
    """Return the addresses of authority that may be dialled, at least one. Raises Refusal."""
    host = authority.host
    if host in settings.pins:
        address, port = settings.pins[host]
        if is_metadata(address):
            raise undialable(host, address, f"{address} is a metadata service")
        return [(address, port or authority.port)]
    addresses = [host] if is_address(host) else await _look_up(host)
    verdicts = {address: refusal(address, settings.ranges) or _own(address, settings.ranges) for address in addresses}
    allowed = [(address, authority.port) for address, why in verdicts.items() if why is None]
    if allowed:
        return allowed
    for address, why in verdicts.items():
        raise undialable(host, address, why or "")
    raise unreachable(f"the name {host} has no address", "dns")


async def _look_up(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise late(f"the name {host} was not resolved in {RESOLVE_S:.0f} s") from None
    except (OSError, UnicodeError):
        raise unreachable(f"the name {host} cannot be resolved", "dns") from None
    return [str(entry[4][0]) for entry in found]


def _own(address: str, ranges: tuple[IPNetwork, ...]) -> str | None:
    """Return why an address of this machine may not be dialled: what listens on it is often for the machine only.

    A public address is no less the host's, and a firewall that shuts it to the world does not shut it to us. The kernel
    knows: to an address of its own it talks from that same address (RFC 6724 §5, rule 1). Nothing is sent.
    """
    parsed = ipaddress.ip_address(address)
    if any(parsed in each for each in ranges):
        return None
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))
        except OSError:
            return None  # no way there at all: the dial will say so
        own = ipaddress.ip_address(sock.getsockname()[0]) == parsed
    return f"{address} is an address of this machine" if own else None


async def _connect(authority: Authority, targets: list[Target]) -> PlainStream:
    """Connect to the first target that answers. Raises Refusal, for the last one's reason."""
    failure: Refusal = unreachable(f"{authority} has no address")
    loop = asyncio.get_running_loop()
    for address, port in targets:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, stream = await loop.create_connection(PlainStream, address, port)
        except TimeoutError:
            failure = late(f"{authority} did not answer in {CONNECT_S:.0f} s")
        except OSError as error:
            failure = unreachable(f"{authority} cannot be reached: {error.strerror or 'connection failed'}", "connect")
        else:
            _tune(stream)
            return stream
    raise failure


async def _secure(
    context: ssl.SSLContext, plain: PlainStream, authority: Authority, session: ssl.SSLSession | None
) -> TlsStream:
    stream = TlsStream(plain, context, server_hostname=authority.host)
    if session is not None:
        stream.resume(session)
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await stream.handshake()
    except TimeoutError:
        raise late(f"{authority} did not finish the TLS handshake in {HANDSHAKE_S:.0f} s") from None
    except ssl.SSLCertVerificationError as error:
        reason = f"{authority}: its certificate is not trusted ({error.verify_message})"
        raise unreachable(reason, "certificate") from None
    except (ssl.SSLError, StreamBroken):
        raise unreachable(f"{authority} broke off the TLS handshake", "tls") from None
    return stream


def _tune(stream: PlainStream) -> None:
    sock = stream.transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)


def _pin(value: str) -> Target:
    """Read `addr`, `addr:port`, `[v6]` or `[v6]:port`."""
    if value.startswith("["):
        address, _, rest = value[1:].partition("]")
        port = rest.removeprefix(":")
    elif value.count(":") == 1:
        address, _, port = value.partition(":")
    else:
        address, port = value, ""
    if not is_address(canonical_host(address)) or (port and not 0 < int(port) < 65_536):
        raise AuthorityRefused(f"{value!r} is no address with an optional port")
    return canonical_host(address), int(port or 0)
