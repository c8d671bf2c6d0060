"""Streams for tests: a connected pair, a stream whose bytes a test holds, and TLS on both ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TypeVar

from moat.proxy.ca import CertificateAuthority, make
from moat.proxy.server.leaves import Leaves
from moat.proxy.server.stream import PlainStream, Stream, StreamBroken
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import client_context

Result = TypeVar("Result")
CA: CertificateAuthority = make(datetime.now(UTC))
LEAVES = Leaves(CA)


async def plain_pair() -> tuple[PlainStream, PlainStream]:
    """Return the two ends of a connection."""
    loop = asyncio.get_running_loop()
    ends: list[PlainStream] = []
    for sock in socket.socketpair():
        _, stream = await loop.connect_accepted_socket(PlainStream, sock)
        ends.append(stream)
    return ends[0], ends[1]


async def tls_pair(host: str = "api.example.com", server_name: str = "") -> tuple[TlsStream, TlsStream]:
    """Return client and server of a handshake with our CA; server_name: the client's SNI."""
    below_client, below_server = await plain_pair()
    server = TlsStream(below_server, LEAVES.context(host))
    client = TlsStream(below_client, client_context(CA.certificate_pem), server_hostname=server_name or host)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.handshake())
            group.create_task(client.handshake())
    except BaseException:
        client.abort()
        server.abort()
        raise
    return client, server


async def flows(stream: Stream) -> bool:
    """Wait for more bytes; False when there are none, however the stream ended."""
    try:
        return await stream.more()
    except StreamBroken:
        return False


async def turns_during(work: Coroutine[None, None, Result]) -> tuple[Result, int]:
    """Return what work returned, and how many turns of the loop somebody else had meanwhile."""
    turns = 0
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(work)
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
    return task.result(), turns


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the conditions are other objects' states, without an event
            await asyncio.sleep(0)
