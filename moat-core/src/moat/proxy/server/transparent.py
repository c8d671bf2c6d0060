"""Connections of clients that ignore proxy settings: the address they came to tells which name they meant.

    our resolver gave api.example.com 127.107.0.7 ─▶ a connection to 127.107.0.7:443 is for https://api.example.com

SNI and Host must agree with that name; an address that was never given out leads nowhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from moat.api.http import DEFAULT_PORTS, Authority
from moat.proxy.flow import Arrival
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal
from moat.proxy.server.connection import Connection
from moat.proxy.server.endpoints import find_place, serve_endpoint
from moat.proxy.server.names import Names
from moat.proxy.server.stream import PlainStream, StreamBroken


async def serve_transparent(connection: Connection, stream: PlainStream, names: Names, scheme: str) -> None:
    """Serve one connection of the http or tls door. names: of the connection's run."""
    address = str(stream.transport.get_extra_info("sockname")[0])
    host = names.host(address)
    if host is None:
        return _nowhere(connection, stream, address, scheme)
    if (place := find_place(connection, host, DEFAULT_PORTS[scheme])) is not None:
        return await serve_endpoint(connection, stream, place)
    arrival = Arrival("transparent", Authority(scheme, host, DEFAULT_PORTS[scheme]))
    if scheme == "http":
        return await connection.serve_bound(stream, arrival)
    with suppress(TimeoutError, StreamBroken):
        async with asyncio.timeout(connection.services.limits.handshake_s):
            if not stream.buffer and not await stream.more():
                return stream.close()
    return await connection.serve_tls(stream, arrival)


def _nowhere(connection: Connection, stream: PlainStream, address: str, scheme: str) -> None:
    refusal = Refusal(421, f"{address} stands for no name", kind="authority")
    trail = Trail(connection.services.emit, connection.run_id, "transparent")
    trail.aim(Authority(scheme, address, DEFAULT_PORTS[scheme]))
    trail.refused(refusal)
    if scheme == "http":
        stream.write(refusal.render())
    stream.close()
