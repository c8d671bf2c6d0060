"""A house in the test's own process, with loopback listeners and an upstream: what connection, exchange and transparent
tests have in common. The real process is tested in tests/integration.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from moat.api.runs import ExchangeRecord, RunContext
from moat.proxy.budget import FailureBudget
from moat.proxy.entering import Entered, Spends
from moat.proxy.guessed import Guessed
from moat.proxy.limits import Limits
from moat.proxy.messages import Configure, ListenName, Uses
from moat.proxy.server.house import House
from moat.proxy.server.stream import PlainStream, Stream
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import client_context

from core.proxy.server.pairs import CA, flows


@dataclass
class Guest:
    """A house, what it reported, and connections to it. says: what the audit does, "" for entered, None for nothing."""

    house: House
    records: list[ExchangeRecord] = field(default_factory=list)
    named: list[tuple[str, str, str]] = field(default_factory=list)
    streams: list[PlainStream] = field(default_factory=list)
    spent: list[Spends] = field(default_factory=list)
    uses: list[Uses] = field(default_factory=list)
    guessed: list[Guessed] = field(default_factory=list)
    says: str | None = ""

    def audit(self, message: object) -> None:
        """Answer first uses, as a daemon does: later."""
        if isinstance(message, Uses):
            self.uses.append(message)
        elif isinstance(message, Guessed):
            self.guessed.append(message)
        elif isinstance(message, Spends):
            self.spent.append(message)
            if self.says is not None:
                answer = Entered(message.id, (self.says,) * len(message.uses))
                asyncio.get_running_loop().call_soon(self.house.answered, answer)

    def listen(self, run_id: str, name: ListenName, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Hand a fresh loopback listener over; return its address."""
        sock = socket.socket()
        sock.bind((host, port))
        sock.listen()
        address: tuple[str, int] = sock.getsockname()
        self.house.listen(run_id, name, sock)
        return address

    async def connect(self, address: tuple[str, int], local: str = "127.0.0.1") -> PlainStream:
        """Return a connection to a listener; closed at the end."""
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(PlainStream, *address, local_addr=(local, 0))
        self.streams.append(stream)
        return stream

    async def tls_through(self, address: tuple[str, int], host: str, token: str = "") -> TlsStream:
        """Return a TLS stream to host through a CONNECT at a proxy listener; closed at the end."""
        plain = await self.connect(address)
        basic = base64.b64encode(f"x:{token}".encode()).decode()
        known = f"Proxy-Authorization: Basic {basic}\r\n" if token else ""
        request = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{known}\r\n"
        await self.ask(plain, request.encode(), b"\r\n\r\n")
        stream = TlsStream(plain, client_context(CA.certificate_pem), server_hostname=host)
        await stream.handshake()
        return stream

    async def ask(self, stream: Stream, request: bytes, until: bytes) -> bytes:
        """Send bytes and return what came back, once it holds until or the connection ends."""
        stream.write(request)
        async with asyncio.timeout(30):
            while until not in stream.buffer and await flows(stream):
                pass
        answer = bytes(stream.buffer)
        stream.buffer.clear()
        return answer


@contextlib.asynccontextmanager
async def a_house(
    *runs: RunContext,
    roots: str = "",
    resolve: dict[str, str] | None = None,
    allow_cidrs: tuple[str, ...] = (),
    proxy: str = "",
    no_proxy: tuple[str, ...] = (),
    limits: Limits | None = None,
    failures: FailureBudget | None = None,
) -> AsyncIterator[Guest]:
    """Run a house with these runs and upstream settings; names may be pinned to loopback servers of the test."""
    async with asyncio.TaskGroup() as group:
        guest: Guest
        house = House(
            group,
            lambda record: guest.records.append(record),
            lambda *named: guest.named.append(named),
            limits,
            failures,
            ask=lambda message: guest.audit(message),
        )
        guest = Guest(house)
        house.configure(Configure(CA.certificate_pem, CA.key_pem, roots, resolve or {}, allow_cidrs, proxy, no_proxy))
        for run in runs:
            house.put(run, {})
        try:
            yield guest
        finally:
            house.close()
            for stream in guest.streams:
                stream.abort()


@contextlib.asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a plain server that answers each head it reads with the next of answers; yield `addr:port` and the heads.

    An answer that begins with b"!" closes the connection after it; one with b"~" comes byte by byte.
    """
    heads: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while left:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = left.pop(0)
                await _send(writer, answer)
                if answer.startswith(b"!"):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", heads
    finally:
        server.close()


async def _send(writer: asyncio.StreamWriter, answer: bytes) -> None:
    if not answer.startswith(b"~"):
        writer.write(answer.removeprefix(b"!"))
        return await writer.drain()
    for byte in answer[1:]:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.0001)  # so that each byte is a read of its own; correctness does not depend on it
    return None
