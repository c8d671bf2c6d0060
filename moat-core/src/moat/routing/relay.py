"""One request into a run and its answer out of it, as bytes that are never collected: event streams, websockets, files.

client ─ head, body ─▶ run      exactly as long as the head says; what comes after it is nobody's
client ◀─ 1xx, head, body ─ run      101: bytes both ways until one side ends
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, replace

from moat.routing import heads

CHUNK = 65_536
LINGER_S = 5.0  # for what an upgraded run still has to say when its client has said everything
MAX_INTERIM = 16
IDLE_S = 3600.0  # neither side said anything: websockets ping every minute or so, terminals do not


@dataclass(frozen=True, slots=True)
class Peer:
    """One side of a relay. idle: what each piece of data that it takes puts off."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle: asyncio.Timeout | None = None

    async def send(self, data: bytes) -> None:
        """Send data, waiting for a slow reader, and for the last of it."""
        self.writer.write(data)
        await self.writer.drain()
        if self.idle is not None and not self.idle.expired():
            self.idle.reschedule(asyncio.get_running_loop().time() + IDLE_S)

    async def finish(self) -> None:
        """Send what is left, and say that there is no more."""
        await self.writer.drain()
        if self.writer.can_write_eof():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    def abort(self) -> None:
        """Close, letting what was written go out."""
        self.writer.close()


async def streams_of(sock: socket.socket, limit: int, context: ssl.SSLContext | None = None) -> Peer:
    """Return the streams of a connected socket; with context after a handshake as its server. Takes the socket over."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    except BaseException:
        sock.close()
        raise
    return Peer(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


async def relay(client: Peer, run: Peer, asked: heads.Asked, scheme: str) -> None:
    """Pass one request on and its answer back.

    Raises OSError and IncompleteReadError when one side goes away, and TimeoutError when nothing moves for IDLE_S.
    """
    upgraded = asyncio.Event()
    await run.send(heads.request_up(asked, scheme))
    async with asyncio.timeout(IDLE_S) as idle, asyncio.TaskGroup() as group:
        client, run = replace(client, idle=idle), replace(run, idle=idle)
        up = group.create_task(_up(client, run, asked, upgraded))
        down = group.create_task(_down(client, run, asked, upgraded))
        up.add_done_callback(lambda done: _is_gone(done) and down.cancel())
        down.add_done_callback(lambda _: up.cancel())


def _is_gone(up: asyncio.Task[bool]) -> bool:
    return not up.cancelled() and up.exception() is None and up.result()


async def _up(client: Peer, run: Peer, asked: heads.Asked, upgraded: asyncio.Event) -> bool:
    """Send the body, then wait for the client's end, and return whether it came.

    What the client sends beyond the body is passed on after an upgrade only.
    """
    left = asked.length
    try:
        while data := await client.reader.read(CHUNK):
            if left is None or upgraded.is_set():
                await run.send(data)
            elif left:
                await run.send(data[:left])
                left = max(0, left - len(data))
        if upgraded.is_set():
            await run.finish()
            await asyncio.sleep(LINGER_S)
    except OSError:
        return False  # the run reads no more: its answer may be on the way; or the client broke off, and writing tells
    return True


async def _down(client: Peer, run: Peer, asked: heads.Asked, upgraded: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        try:
            answered = await _answer_head(client, run)
        except (heads.BadHead, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            text = "the run's program closed the connection, or did not answer in HTTP\n"
            return await client.send(heads.answer_of_ours(502, "text/plain", text, asked.method))
        if answered.status == 101:
            upgraded.set()
        while data := await run.reader.read(CHUNK):
            await client.send(data)
        return await client.finish()


async def _answer_head(client: Peer, run: Peer) -> heads.Answered:
    """Pass on the heads of an answer, and return the last. Raises BadHead, IncompleteReadError, LimitOverrunError."""
    for _ in range(MAX_INTERIM):
        answered = heads.read_answer(await run.reader.readuntil(b"\r\n\r\n"))
        await client.send(heads.answer_down(answered))
        if answered.status >= 200 or answered.status == 101:
            return answered
    raise heads.BadHead("too many interim answers")
