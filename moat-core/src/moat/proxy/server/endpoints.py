"""Connections to an endpoint's place: a name and port of the run's own, or a socket inside.

    CONNECT db.internal:5432 · 127.107.0.9:5432 · /run/db.sock ─┬─ Stream ─▶ upstream, its prelude ─▶ bytes both ways
                                                                └─ others ─▶ requests, over HTTP/1.1 or HTTP/2

The place is the identity: which endpoint is there is asked of the run as it is now, for every request and stream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from moat.api.endpoints import Endpoint, OnHost, Stream, Tcp, UnixPath
from moat.api.http import Authority
from moat.proxy.endpoint import authority_of, endpoint_at, judge_stream, place_of
from moat.proxy.flow import Arrival
from moat.proxy.http2_frames import PREFACE
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal
from moat.proxy.server import stream as streams
from moat.proxy.server.greeting import NoHandshake, shake_hands
from moat.proxy.server.names import Names
from moat.proxy.server.stream import PlainStream, StreamBroken, within
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.tunnel import join
from moat.proxy.server.versions import HTTP2

if TYPE_CHECKING:
    from moat.proxy.server.connection import Connection


async def serve_endpoint(connection: Connection, stream: PlainStream, where: Tcp | UnixPath) -> None:
    """Serve one connection to a place."""
    trail = connection.trail("endpoint", "STREAM", authority_of(where))
    try:
        endpoint = endpoint_at(connection.run(), where)
        if endpoint is not None and isinstance(endpoint.how, Stream | OnHost):
            return await _serve_stream(connection, stream, endpoint, trail)
    except Refusal as refusal:  # no HTTP is spoken here: the end of the connection is all that can be said
        trail.refused(refusal)
        return stream.close()
    return await _serve_requests(connection, stream, where)


async def serve_port(connection: Connection, stream: PlainStream, names: Names, port: int) -> None:
    """Serve one connection to a port that only endpoints have: its local address tells which name was meant."""
    address = str(stream.transport.get_extra_info("sockname")[0])
    place = find_place(connection, names.host(address) or "", port)
    if place is not None:
        return await serve_endpoint(connection, stream, place)
    trail = connection.trail("transparent", "", Authority("https", address, port))
    trail.refused(Refusal(421, f"{address} port {port} leads to no endpoint", kind="endpoint"))
    return stream.close()


def find_place(connection: Connection, host: str, port: int) -> Tcp | None:
    """Return the place that a name and port are in the connection's run, None for none."""
    try:
        return place_of(connection.run(), host, port)
    except Refusal:
        return None


async def _serve_requests(connection: Connection, stream: PlainStream, where: Tcp | UnixPath) -> None:
    arrival = Arrival("endpoint", authority_of(where), where)
    if isinstance(where, Tcp) and where.tls:
        return await connection.serve_tls(stream, arrival)
    try:
        is_http2 = await _begins_as_http2(stream, connection.services.limits.handshake_s)
    except (TimeoutError, StreamBroken):
        return stream.close()
    if is_http2:
        return await connection.serve_http2(stream, arrival)
    return await connection.serve_bound(stream, arrival)


async def _begins_as_http2(stream: PlainStream, limit_s: float) -> bool:
    """Whether the client knows without asking that HTTP/2 is spoken here (RFC 9113 §3.3), as gRPC does in clear."""
    until = within(limit_s)
    while not stream.buffer or (len(stream.buffer) < len(PREFACE) and PREFACE.startswith(stream.buffer)):
        if not await stream.more(until):
            return False
    return stream.buffer.startswith(PREFACE)


async def _serve_stream(connection: Connection, stream: PlainStream, endpoint: Endpoint, trail: Trail) -> None:
    """Dial first: who speaks first is the protocol's matter, and what upstream agreed on is what the client is told."""
    services = connection.services
    passage = judge_stream(connection.run(), endpoint, trail)
    passage.tell(trail)
    await connection.tunnel.spend(trail.run_id, passage, trail.via)
    upstream, prelude = passage.upstream, getattr(endpoint.how, "prelude", b"")
    protocols = () if upstream is None else upstream.alpn
    far = await services.pool.dialler.dial(passage.authority, upstream, protocols)
    try:
        near = await _near(connection, stream, endpoint.where, far)
        if prelude:
            far.write(prelude)
        connection.current = passage
        idle_s, half_idle_s = services.limits.upgrade_idle_s, services.limits.half_idle_s
        trail.forwarded(await join(near, far, trail, idle_s=idle_s, half_idle_s=half_idle_s))
    except NoHandshake as problem:
        trail.failed(str(problem))
        far.abort()
        stream.close()
    except asyncio.CancelledError:
        trail.forwarded(connection.ending)
        far.abort()
        raise


async def _near(connection: Connection, stream: PlainStream, where: object, far: streams.Stream) -> streams.Stream:
    """Return the client's stream, inside the TLS that a place may have. Raises NoHandshake."""
    if not isinstance(where, Tcp) or not where.tls:
        return stream
    is_http2 = isinstance(far, TlsStream) and far.protocol == HTTP2
    context = connection.services.leaves.context(where.name, http2=is_http2)
    return await shake_hands(stream, context, connection.services.limits.handshake_s)
