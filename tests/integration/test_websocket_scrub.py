"""Websockets through a house: a credential that comes back in frames is gone, and nobody can compress it past us."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import until
from moat.api.rules import Rule
from moat.proxy.scrub import mask
from moat.proxy.server.tls import TlsStream
from support.proxied import RULE, SECRET
from support.upstream import make_test_ca
from support.worker import RUN, a_run

HOST = "api.example.com"
TOKEN = SECRET.removeprefix("Bearer ").encode()
HIDDEN = mask(len(TOKEN))
CA = make_test_ca()
UPGRADE = (
    f"GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
).encode()


@dataclass
class Service:
    """A server that upgrades whoever asks and then sends what it is told to, piece by piece."""

    pieces: tuple[bytes, ...] = ()
    agreed: str = ""
    protocol: str = "websocket"
    pin: str = ""
    heads: list[bytes] = field(default_factory=list)
    said: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            lines = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {self.protocol}\r\n"
            writer.write(f"{lines}{self.agreed}\r\n".encode())
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
            self.said = await reader.read(65_536)
        writer.close()


@contextlib.asynccontextmanager
async def upgraded(service: Service, *rules: Rule) -> AsyncIterator[tuple[Guest, TlsStream]]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=CA.server_context(HOST))
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with a_house(a_run(rules=rules), roots=CA.pem, resolve={HOST: pin}) as guest:
            client = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
            client.write(UPGRADE.replace(b"Upgrade: websocket", f"Upgrade: {service.protocol}".encode()))
            yield guest, client
    finally:
        server.close()


async def to_its_end(guest: Guest, client: TlsStream) -> bytes:
    """Return all that comes until the connection ends, and is recorded."""
    with contextlib.suppress(ConnectionError):
        while await client.more():
            pass
    await until(lambda: bool(guest.records))
    return bytes(client.buffer)


async def received(client: TlsStream, count: int) -> bytes:
    """Return the head and so many bytes after it."""
    while len(client.buffer.partition(b"\r\n\r\n")[2]) < count:
        assert await client.more()
    return bytes(client.buffer)


def text(payload: bytes, *, final: bool = True, opcode: int = 1) -> bytes:
    return bytes(((0x80 if final else 0) | opcode, len(payload))) + payload


async def test_a_credential_in_frames_is_removed_and_compression_is_not_offered_on() -> None:
    sent = text(b"you are " + TOKEN[:6], final=False) + text(b"", opcode=9) + text(TOKEN[6:] + b"!", opcode=0)
    service = Service(tuple(sent[at : at + 3] for at in range(0, len(sent), 3)))
    async with upgraded(service, RULE) as (guest, client):
        seen = await received(client, len(sent))
        client.write(b"\x81\x83maskxyz")  # what the client says passes as it is
        await until(lambda: bool(service.said))
        client.close()
        await until(lambda: bool(guest.records))

    assert SECRET.encode() in service.heads[0]
    assert b"permessage-deflate" not in service.heads[0]
    assert b"Sec-WebSocket-Key" in service.heads[0]
    expected = text(b"you are " + HIDDEN[:6], final=False) + text(b"", opcode=9) + text(HIDDEN[6:] + b"!", opcode=0)
    assert seen.partition(b"\r\n\r\n")[2] == expected
    assert service.said == b"\x81\x83maskxyz"
    assert (guest.records[0].status, guest.records[0].response_bytes) == (101, len(sent))


async def test_a_server_that_compresses_unasked_is_a_502() -> None:
    service = Service(agreed="Sec-WebSocket-Extensions: permessage-deflate\r\n")
    async with upgraded(service, RULE) as (guest, client):
        while b"\r\n\r\n" not in client.buffer:
            assert await client.more()
        seen = bytes(client.buffer)
        await until(lambda: bool(guest.records))

    assert seen.startswith(b"HTTP/1.1 502 ")
    assert "extensions" in guest.records[0].reason


async def test_frames_that_cannot_be_read_end_the_connection() -> None:
    service = Service((text(b"fine"), bytes((0xC1, 4)) + b"zzzz", text(TOKEN)))
    async with upgraded(service, RULE) as (guest, client):
        seen = await to_its_end(guest, client)

    assert TOKEN not in seen
    assert b"zzzz" not in seen
    assert "extension" in guest.records[0].reason


async def test_a_credential_in_spdy_is_removed_and_another_stream_goes_on_meanwhile() -> None:
    first, second = data(1, b"you are " + TOKEN[:6]), data(1, TOKEN[6:] + b"!", 1)
    service = Service((first[:5], first[5:] + data(3, b"else"), second), protocol="SPDY/3.1")
    async with upgraded(service, RULE) as (guest, client):
        seen = await received(client, len(first + second) + 12)
        client.close()
        await until(lambda: bool(guest.records))

    came = seen.partition(b"\r\n\r\n")[2]
    assert SECRET.encode() in service.heads[0]
    assert TOKEN not in came
    assert TOKEN[6:] not in came
    assert came.startswith(data(1, b"you are "))
    assert data(3, b"else") in came
    assert came.endswith(data(1, HIDDEN + b"!", 1))
    assert (guest.records[0].status, guest.records[0].scrubbed) == (101, 1)


async def test_spdy_that_cannot_be_read_ends_the_connection() -> None:
    service = Service((data(1, b"fine"), data(1, b"zzzz", 2), data(1, TOKEN)), protocol="SPDY/3.1")
    async with upgraded(service, RULE) as (guest, client):
        seen = await to_its_end(guest, client)

    assert b"zzzz" not in seen
    assert TOKEN not in seen
    assert "SPDY/3.1" in guest.records[0].reason


@pytest.mark.parametrize("protocol", ["websocket", "SPDY/3.1", "foo/1"])
async def test_where_no_scrub_is_due_everything_passes_as_it_is(protocol: str) -> None:
    service = Service((bytes((0xC1, 4)) + b"zzzz",), protocol=protocol)
    async with upgraded(service) as (_, client):
        seen = await received(client, 6)

    assert seen.endswith(b"zzzz")
    assert b"permessage-deflate" in service.heads[0]


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a frame of data of SPDY/3.1."""
    return stream.to_bytes(4) + bytes((flags,)) + len(payload).to_bytes(3) + payload
