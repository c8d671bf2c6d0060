"""Dialling: a name becomes checked addresses, one of them a connection, and that a verified TLS stream.

    pin or getaddrinfo ─▶ every address judged ─▶ TCP to a judged address (race) ─┬─▶ TLS ≥ 1.2, the name verified
    upstream.proxy ─▶ literal addresses judged ─▶ TCP to the proxy ─▶ CONNECT ────┘   (secure)

The address that was judged is the one dialled; nothing is looked up twice. A pin (`upstream.resolve`) is permission for
its name, except that metadata services are never dialled. Through a proxy, names are the proxy's to resolve and judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moat.api.http import Authority
from moat.net.addresses import IPNetwork, is_metadata, refusal
from moat.net.authority import AuthorityRefused, canonical_host, is_address
from moat.net.hosts import is_this_machine
from moat.net.route import ProxyRoute
from moat.proxy.messages import Configure
from moat.proxy.refusal import late, looped, undialable, unreachable
from moat.proxy.server.chain import open_tunnel
from moat.proxy.server.hairpin import is_here
from moat.proxy.server.race import Target, first_connected, interleaved
from moat.proxy.server.secure import secure
from moat.proxy.server.stream import PlainStream, Stream

RESOLVE_S = 10.0  # resolvers give up after 5 s twice (resolv.conf(5))
CONNECT_S = 10.0  # per address: three SYNs are sent within 7 s
_LOOPBACK = ("127.0.0.1", "::1")  # in this order: some servers of today listen on the second alone
KEEPALIVE_IDLE_S = 60  # finds peers that vanished under a silent stream


@dataclass(frozen=True, slots=True)
class DialSettings:
    """The `upstream` settings, parsed once. pins: canonical host → address and port (0: the request's).

    is_ours: whether something of this worker listens there, so that dialling it would be a loop.
    """

    tls: ssl.SSLContext
    pins: Mapping[str, Target] = field(default_factory=dict)
    ranges: tuple[IPNetwork, ...] = ()
    proxy: ProxyRoute | None = None
    roots: str = field(default="", repr=False)
    is_ours: Callable[[Target], bool] = lambda _: False

    @classmethod
    def of(cls, message: Configure, is_ours: Callable[[Target], bool] = lambda _: False) -> DialSettings:
        """Return settings from the daemon's message. Raises ValueError or ssl.SSLError for what cannot be used."""
        pins = {canonical_host(host): _pin(value) for host, value in message.resolve.items()}
        ranges = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in message.allow_cidrs)
        proxy = ProxyRoute.parse(message.proxy, message.no_proxy) if message.proxy else None
        return cls(client_context(message.roots), pins, ranges, proxy, message.roots, is_ours)

    def proxy_for(self, authority: Authority) -> ProxyRoute | None:
        """Return the proxy that authority is reached through; None for a pinned host: its address is settled.

        None for what runs call this machine, too: it is nobody else's.
        """
        is_settled = authority.host in self.pins or is_this_machine(authority.host)
        is_direct = self.proxy is None or is_settled or not self.proxy.is_for(authority)
        return None if is_direct else self.proxy


def client_context(roots: str, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """Return a client context with the system's roots and these. Costs 20 ms, so it is made once per protocols."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    if roots:
        context.load_verify_locations(cadata=roots)
    return context


async def dial(
    settings: DialSettings,
    authority: Authority,
    session: ssl.SSLSession | None = None,
    context: ssl.SSLContext | None = None,
    *,
    is_here: bool = False,
) -> Stream:
    """Return a stream to authority, verified if it is https. context: another than the settings'. Raises Refusal.

    is_here: to its port of this machine's loopback, whatever its name. Plain http through a proxy: a stream to the
    proxy, which wants the target in absolute form.
    """
    plain = await (_reach_here(settings, authority.port) if is_here else _reach(settings, authority))
    if authority.scheme == "http":
        return plain
    try:
        if (route := settings.proxy_for(authority)) is not None:
            await open_tunnel(plain, route, authority)
        return await secure(context or settings.tls, plain, authority, session)
    except BaseException:
        plain.abort()
        raise


async def _reach(settings: DialSettings, authority: Authority) -> PlainStream:
    """Connect to authority, or to the proxy on the way there."""
    route = settings.proxy_for(authority)
    if route is None:
        targets, name = await resolve(settings, authority), str(authority)
    else:
        _judge_unresolved(settings, authority)
        targets, name = await _resolve_proxy(settings, route), f"the proxy {route}"
    if any(settings.is_ours(target) for target in targets):
        raise looped(f"{name} leads back to this proxy")
    return await first_connected(interleaved(targets), lambda target: _connect(name, target))


async def _reach_here(settings: DialSettings, port: int) -> PlainStream:
    """Connect to a port of this machine that the user opened: of its loopback only, and no listener of ours."""
    name = f"port {port} of this machine"
    targets = [(address, port) for address in _LOOPBACK]
    if any(settings.is_ours(target) for target in targets):
        raise looped(f"{name} leads back to this proxy")
    return await first_connected(targets, lambda target: _connect(name, target))


async def resolve(settings: DialSettings, authority: Authority) -> list[Target]:
    """Return the addresses of authority that may be dialled, at least one. Raises Refusal."""
    host = authority.host
    if host in settings.pins:
        address, port = settings.pins[host]
        if is_metadata(address):
            raise undialable(host, address, f"{address} is a metadata service")
        return [(address, port or authority.port)]
    addresses = [host] if is_address(host) else await _look_up(host)
    verdicts = {address: _judged(address, settings.ranges) for address in addresses}
    allowed = [(address, authority.port) for address, why in verdicts.items() if why is None]
    if allowed:
        return allowed
    for address, why in verdicts.items():
        raise undialable(host, address, why or "")
    raise unreachable(f"the name {host} has no address", "dns")


def _judge_unresolved(settings: DialSettings, authority: Authority) -> None:
    """Raise for what may not be asked of a proxy. Names are judged by the proxy, which alone sees their addresses."""
    host = authority.host
    if is_address(host) and (why := _judged(host, settings.ranges)) is not None:
        raise undialable(host, host, why)
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3: the proxy's own, if it does not know better
        raise undialable(host, "127.0.0.1", f"{host} is the proxy's own machine")


async def _resolve_proxy(settings: DialSettings, route: ProxyRoute) -> list[Target]:
    """Return the proxy's addresses. It may be anywhere: whoever wrote config.yaml named it."""
    pinned = settings.pins.get(route.host)
    if pinned is not None:
        return [(pinned[0], pinned[1] or route.port)]
    addresses = [route.host] if is_address(route.host) else await _look_up(route.host)
    if allowed := [(address, route.port) for address in addresses if not is_metadata(address)]:
        return allowed
    raise unreachable(f"the proxy {route} has no address that may be dialled", "dns")


def _judged(address: str, ranges: tuple[IPNetwork, ...]) -> str | None:
    """Return why an address may not be dialled, or None."""
    return refusal(address, ranges) or _own(address, ranges)


async def _look_up(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise late(f"the name {host} was not resolved in {RESOLVE_S:.0f} s") from None
    except (OSError, UnicodeError):
        raise unreachable(f"the name {host} cannot be resolved", "dns") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _own(address: str, ranges: tuple[IPNetwork, ...]) -> str | None:
    """Return why an address of this machine may not be dialled: what listens on it is often for the machine only.

    A public address is no less the host's, and a firewall that shuts it to the world does not shut it to us.
    """
    parsed = ipaddress.ip_address(address)
    is_opened = any(parsed in each for each in ranges)
    return f"{address} is an address of this machine" if not is_opened and is_here(parsed) else None


async def _connect(name: str, target: Target) -> PlainStream:
    """Connect to one target. name: whom the refusal speaks of. Raises Refusal."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, stream = await asyncio.get_running_loop().create_connection(PlainStream, *target)
    except TimeoutError:
        raise late(f"{name} did not answer in {CONNECT_S:.0f} s") from None
    except ConnectionRefusedError:
        raise unreachable(f"{name} cannot be reached: connection refused", "refused") from None
    except OSError as error:
        reason = f"{name} cannot be reached: {(error.strerror or 'connection failed').lower()}"
        raise unreachable(reason, "unreachable") from None
    _tune(stream)
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
