"""HTTP/2 peers for tests, by the `h2` library alone: a client over a stream of ours, and a TLS server of the test's.

async with h2_server(answer) as server, h2_house(server) as guest:
    client = await h2_client(guest)
    stream = client.ask("/path", end=True)
    await client.until(lambda: client.ended(stream))
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import client_context
from support.upstream import make_test_ca
from support.worker import RUN, a_run

from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import CA, flows

HOST = "a.example"
SECRET = "Bearer s3cr3t-of-the-upstream"
RULE = SetHeader(Match(HOST), "Authorization", SECRET, "example")
UPSTREAM_CA = make_test_ca()


@dataclass
class Peer:
    """One side of a connection. seen: every event so far. write: takes bytes to send. tls: of a server's peer."""

    h2: H2Connection
    write: Callable[[bytes], object]
    seen: list[events.Event] = field(default_factory=list)
    is_over: bool = False
    tls: ssl.SSLObject | None = None

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.write(data)

    def take_in(self, data: bytes, *, acknowledge: bool = True) -> list[events.Event]:
        found = self.h2.receive_data(data)
        self.seen += found
        for event in found:
            if isinstance(event, events.DataReceived) and acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return found

    def send(self, stream: int, *pairs: tuple[str, str], data: bytes | None = None, end: bool = False) -> None:
        """Send a field section, then data that fits in one frame."""
        if pairs:
            self.h2.send_headers(stream, pairs, end_stream=end and data is None)
        if data is not None:
            self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def of(self, kind: type[events.Event], stream: int) -> list[events.Event]:
        return [event for event in self.seen if isinstance(event, kind) and getattr(event, "stream_id", 0) == stream]

    def ended(self, stream: int) -> bool:
        return bool(self.of(events.StreamEnded, stream) or self.of(events.StreamReset, stream))

    def body(self, stream: int) -> bytes:
        return b"".join(bytes(event.data) for event in self.seen
                        if isinstance(event, events.DataReceived) and event.stream_id == stream)  # fmt: skip

    def fields(self, stream: int) -> dict[str, str]:
        """Return the fields of every section of a stream, trailers too."""
        found: dict[str, str] = {}
        for event in self.seen:
            if getattr(event, "stream_id", 0) == stream and hasattr(event, "headers"):
                found |= {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
        return found

    def reset_code(self, stream: int) -> int | None:
        found = self.of(events.StreamReset, stream)
        return int(found[0].error_code) if found and isinstance(found[0], events.StreamReset) else None


@dataclass
class Client(Peer):
    """A client over a stream of ours; reads when it is asked to."""

    stream: TlsStream | None = None
    acknowledges: bool = True

    def ask(self, path: str = "/", *extra: tuple[str, str], end: bool = True, method: str = "GET") -> int:
        """Send a request; return its stream."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
        self.h2.send_headers(number, [*head, *extra], end_stream=end)
        self.flush()
        return number

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until condition holds, or the connection ends."""
        assert self.stream is not None
        async with asyncio.timeout(30):
            while not condition():
                if not self.stream.buffer and not await flows(self.stream):
                    self.is_over = True
                    return
                data = bytes(self.stream.buffer)
                self.stream.buffer.clear()
                self.take_in(data, acknowledge=self.acknowledges)

    async def answered(self, stream: int) -> dict[str, str]:
        """Return the fields of a whole answer."""
        await self.until(lambda: self.ended(stream))
        return self.fields(stream)


@dataclass
class Server:
    """A server that calls answer for every event of a connection. peers: its connections. settings: by number."""

    answer: Callable[[Peer, events.Event], None]
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    closed: int = 0
    acknowledges: bool = True
    settings: dict[int, int] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(H2Connection(H2Configuration(client_side=False, header_encoding=None)), writer.write)
        peer.tls = writer.get_extra_info("ssl_object")
        self.peers.append(peer)
        peer.h2.initiate_connection()
        if self.settings:
            peer.h2.update_settings(self.settings)
        peer.flush()
        with contextlib.suppress(ConnectionError, ProtocolError):
            while data := await reader.read(65_536):
                for event in peer.take_in(data, acknowledge=self.acknowledges):
                    self.answer(peer, event)
        peer.is_over = True
        self.closed += 1
        writer.close()


def ok(peer: Peer, event: events.Event) -> None:
    """Answer each request with 200 and `ok`, once its head is there."""
    if isinstance(event, events.RequestReceived):
        peer.send(event.stream_id, (":status", "200"), ("x", "y"), data=b"ok", end=True)


def server_context(*protocols: str) -> ssl.SSLContext:
    certificate, key = UPSTREAM_CA.leaf((HOST, "b.example"), expired=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(list(protocols))
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@contextlib.asynccontextmanager
async def h2_server(answer: Callable[[Peer, events.Event], None] = ok) -> AsyncIterator[Server]:
    """Run an upstream that speaks only HTTP/2."""
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_context("h2"))
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@contextlib.asynccontextmanager
async def h2_house(
    port: int,
    *,
    policy: NetworkPolicy | None = None,
    limits: Limits | None = None,
    rules: tuple[Rule, ...] = (RULE,),
) -> AsyncIterator[Guest]:
    """Run a house with one run whose name leads to port."""
    run = a_run(rules=rules, policy=policy)
    pins = {HOST: f"127.0.0.1:{port}", "b.example": f"127.0.0.1:{port}"}
    async with a_house(run, roots=UPSTREAM_CA.pem, resolve=pins, limits=limits) as guest:
        yield guest


async def h2_client(guest: Guest, address: tuple[str, int] | None = None, *, window: int | None = None) -> Client:
    """Return an HTTP/2 client of the run. window: what it takes of a stream without being asked to read."""
    stream = await tls_client(guest, "h2", address=address)
    assert stream.protocol == "h2"
    client = Client(H2Connection(H2Configuration(client_side=True, header_encoding=None,
                                                 validate_outbound_headers=False, normalize_outbound_headers=False)),
                    stream.write, stream=stream)  # fmt: skip
    client.h2.initiate_connection()
    if window is not None:
        client.h2.update_settings({4: window})
    client.flush()
    return client


async def tls_client(guest: Guest, *protocols: str, address: tuple[str, int] | None = None) -> TlsStream:
    """Return a TLS stream through the run's proxy door that offers protocols."""
    plain = await guest.connect(address or guest.listen(RUN, "proxy"))
    await guest.ask(plain, f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode(), b"\r\n\r\n")
    stream = TlsStream(plain, client_context(CA.certificate_pem, protocols), server_hostname=HOST)
    await stream.handshake()
    return stream
