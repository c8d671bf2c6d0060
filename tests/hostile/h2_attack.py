"""A connection of a run's whose HTTP/2 frames are the test's own, and an upstream that counts what reaches it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from core.proxy.server.h2_peers import HOST, Peer, Server, h2_client, h2_house, h2_server, ok, tls_client
from core.proxy.server.house_of import Guest
from core.proxy.server.pairs import until
from h2 import events
from hpack import Decoder
from moat.proxy.http2_frames import FLOOD_BURST, PREFACE, Kind
from moat.proxy.limits import Limits
from moat.proxy.server.tls import TlsStream
from support.worker import RUN

END_STREAM, END_HEADERS = 1, 4
MANY = FLOOD_BURST + 400
PATIENCE_S = 30.0


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def setting(number: int, value: int) -> bytes:
    return frame(Kind.SETTINGS, number.to_bytes(2) + value.to_bytes(4))


def window(stream: int, count: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, count.to_bytes(4), 0, stream)


def reset(stream: int, code: int = 8) -> bytes:
    return frame(Kind.RST_STREAM, code.to_bytes(4), 0, stream)


def head(
    stream: int, *extra: tuple[str, str], over: bool = True, method: str = "GET", flags: int = END_HEADERS
) -> bytes:
    """Return a request's HEADERS. Nothing is put into the table, so that each can stand for itself."""
    pairs = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", "/"), *extra]
    block = b"".join(literal(name, value) for name, value in pairs)
    return frame(Kind.HEADERS, block, flags | (END_STREAM if over else 0), stream)


def literal(name: str, value: str) -> bytes:
    """Return a field without indexing (RFC 7541 §6.2.2); lengths below 127 only."""
    raw = [part.encode("latin-1") for part in (name, value)]
    return b"\0" + b"".join(bytes((len(part),)) + part for part in raw)


@dataclass
class Attack:
    """A connection of the run's whose bytes are the test's."""

    stream: TlsStream
    guest: Guest
    server: Server
    got: bytearray = field(default_factory=bytearray)

    def send(self, *frames: bytes) -> None:
        self.stream.write(b"".join(frames))

    async def read(self, enough: Callable[[list[tuple[int, int, bytes]]], bool]) -> list[tuple[int, int, bytes]]:
        """Read until enough frames (kind, stream, payload) came, or the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough(self.frames()):
                with contextlib.suppress(ConnectionError):
                    if self.stream.buffer or await self.stream.more():
                        self.got += self.stream.buffer
                        self.stream.buffer.clear()
                        continue
                break
        return self.frames()

    async def goodbye(self) -> int | None:
        """Return the code of the GOAWAY that ends the connection, None where it ends without."""
        found = [payload for kind, _, payload in await self.read(lambda _: False) if kind == Kind.GOAWAY]
        return int.from_bytes(found[-1][4:8]) if found else None

    async def reset_of(self, stream: int) -> int:
        """Return the code that a stream was reset with."""
        frames = await self.read(lambda seen: any(each[:2] == (Kind.RST_STREAM, stream) for each in seen))
        return next(
            int.from_bytes(payload) for kind, number, payload in frames if (kind, number) == (Kind.RST_STREAM, stream)
        )

    def frames(self) -> list[tuple[int, int, bytes]]:
        found, at = [], 0
        while len(self.got) >= at + 9:
            end = at + 9 + int.from_bytes(self.got[at : at + 3])
            if len(self.got) < end:
                break
            found.append((self.got[at + 3], int.from_bytes(self.got[at + 5 : at + 9]), bytes(self.got[at + 9 : end])))
            at = end
        return found

    @property
    def asked(self) -> int:
        """How many requests reached the upstream."""
        return sum(isinstance(event, events.RequestReceived) for peer in self.server.peers for event in peer.seen)

    async def spares_others(self) -> None:
        """Fail unless another connection of the same run is served as ever, and nothing is left of this one."""
        client = await h2_client(self.guest, self.guest.listen(RUN, "proxy"))
        assert (await client.answered(client.ask()))[":status"] == "200"
        services = self.guest.house._services
        assert services is not None
        self.stream.abort()
        assert client.stream is not None
        client.stream.abort()
        await until(lambda: not services.h2.streams)


def held(peer: Peer, event: events.Event) -> None:
    """Answer only who says so: the others' requests stay open."""
    if isinstance(event, events.RequestReceived) and peer.fields(event.stream_id).get("x-hold") is None:
        ok(peer, event)


@contextlib.asynccontextmanager
async def attacking(
    answer: Callable[[Peer, events.Event], None] = held, *, greet: bytes | None = None, takes: bool = True
) -> AsyncIterator[Attack]:
    """Connect as greet begins, with an upstream that answers so. takes: whether that gives room for more of bodies."""
    limits = Limits(linger_s=0.2)  # the attackers here do not hang up by themselves
    async with h2_server(answer) as server, h2_house(server.port, limits=limits) as guest:
        server.acknowledges = takes
        stream = await tls_client(guest, "h2")
        attack = Attack(stream, guest, server)
        attack.send(PREFACE + frame(Kind.SETTINGS) if greet is None else greet)
        yield attack
        stream.abort()


def status_of(seen: list[tuple[int, int, bytes]], stream: int) -> int | None:
    """Return the final status of a stream's answer, None before there is one."""
    decoder = Decoder()
    for kind, number, payload in seen:
        if kind == Kind.HEADERS:  # all of them: they share a table
            pairs = [(bytes(name), bytes(value)) for name, value in decoder.decode(payload, raw=True)]
            status = int(dict(pairs).get(b":status", b"0"))
            if number == stream and status >= 200:
                return status
    return None
