"""Everything outside: answers on every address, keeps each byte, and notes each packet that comes over the wire.

DNS at 9.9.9.9 from a table, `dns`     HTTP on 80, 8080; HTTPS on 443, 8443, 853; bytes on 22, 25, 6379
GET /moved?to=URL → 302                anything else → 200 "hello\n"
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import socket
import ssl
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qs, urlsplit

from support.upstream import MadeCa, make_test_ca

PLAIN_PORTS = (22, 25, 80, 6379, 8080)
TLS_PORTS = (443, 853, 8443)
RESOLVER_ADDRESS = ("9.9.9.9", 53)
HOSTS = ("*.example.com", "example.com", "*.example.org", "api.github.com", "github.com", "uploads.github.com",
         "8.8.4.4", "evil.test", "*.evil.test")  # fmt: skip
TCP, UDP = 6, 17
NEIGHBOURS = range(130, 138)  # ICMPv6 types with which neighbours find each other (RFC 4861), and 143 (RFC 3810)


@dataclass(frozen=True)
class Packet:
    """A packet that came over the wire; for TCP only the one that opens a connection."""

    protocol: int
    destination: str
    port: int


@dataclass
class Connection:
    """A connection to the outside that was made or used. data: all bytes that came, after TLS."""

    address: str
    port: int
    server_name: str
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Internet:
    """What was seen. dns: name → addresses; a list of lists answers one query each, the last one from then on."""

    ca: MadeCa = field(default_factory=make_test_ca)
    dns: dict[str, list[list[str]]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    noted: list[Packet] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    open: list[asyncio.StreamWriter] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    wire: socket.socket | None = None

    @property
    def packets(self) -> list[Packet]:
        """The packets that have come so far: what waits at the wire is taken in first."""

        async def look() -> None:
            _note(self)

        if self.wire is not None:
            asyncio.run_coroutine_threadsafe(look(), self.loop).result(30)
        return self.noted

    def name(self, host: str, *addresses: str) -> None:
        """Let host have these addresses."""
        self.dns[host] = [list(addresses)]

    def forget(self) -> None:
        """Forget what was seen."""
        self.queries.clear()
        self.packets.clear()  # with what is still on its way in
        self.connections.clear()

    def say_unasked(self, data: bytes) -> None:
        """Send data on every connection that is open, though nobody asked; return when the peers' kernels have it."""

        async def send() -> None:
            for writer in list(self.open):
                writer.write(data)
                while _unacknowledged(writer):  # noqa: ASYNC110 # the kernel tells nobody when
                    await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(send(), self.loop).result(10)

    @property
    def bytes_seen(self) -> bytes:
        """Return everything that any connection carried."""
        return b"\n".join(bytes(connection.data) for connection in self.connections)

    def answers(self, host: str, kind: int) -> tuple[str, list[str]]:
        """Return the name that a query ends at and its addresses of that kind (1: A, 28: AAAA)."""
        self.queries.append(host)
        final = self.aliases.get(host, host)
        turns = self.dns.get(final, [[]])
        addresses = turns.pop(0) if len(turns) > 1 and kind == 1 else turns[0]
        return final, [address for address in addresses if (":" in address) == (kind == 28)]


@contextlib.contextmanager
def serve_internet(internet: Internet, start: Callable[[Callable[[], None]], threading.Thread]) -> Iterator[None]:
    """Serve in a thread that start puts where it belongs."""
    loop = internet.loop
    ready, stopping = threading.Event(), asyncio.Event()
    thread = start(lambda: loop.run_until_complete(_serve(internet, ready, stopping)))
    try:
        assert ready.wait(30), "the internet did not start"
        yield
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()


async def _serve(internet: Internet, ready: threading.Event, stopping: asyncio.Event) -> None:
    names: dict[int, str] = {}
    context = internet.ca.server_context(*HOSTS)
    context.sni_callback = lambda tls, name, _: names.update({id(tls): name or ""})

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _talk(internet, names, reader, writer)

    async with contextlib.AsyncExitStack() as stack:
        for port in (*PLAIN_PORTS, *TLS_PORTS):
            for family in (socket.AF_INET, socket.AF_INET6):
                secure = context if port in TLS_PORTS else None
                server = await asyncio.start_server(talk, sock=_listener(family, port), ssl=secure)
                stack.callback(server.close)
        loop = asyncio.get_running_loop()
        resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        resolver.bind(RESOLVER_ADDRESS)
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        wire.bind(("w0", 3))
        internet.wire = wire
        for sock, handle in ((resolver, partial(_answer, internet, resolver)), (wire, partial(_note, internet))):
            sock.setblocking(False)
            loop.add_reader(sock, handle)
            stack.callback(sock.close)
            stack.callback(loop.remove_reader, sock)
        stack.callback(setattr, internet, "wire", None)
        ready.set()
        await stopping.wait()


def _listener(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family is socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("::" if family is socket.AF_INET6 else "0.0.0.0", port))
    return sock


async def _talk(
    internet: Internet, names: dict[int, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    address, port = writer.get_extra_info("sockname")[:2]
    name = names.get(id(writer.get_extra_info("ssl_object")), "")
    connection = Connection(address, port, name)
    internet.connections.append(connection)
    internet.open.append(writer)
    with contextlib.suppress(OSError, ssl.SSLError):
        pending = b""
        while data := await reader.read(65_536):
            if not any(connection is known for known in internet.connections):  # forgotten, and kept open by the proxy
                connection = Connection(address, port, name)
                internet.connections.append(connection)
            connection.data += data
            pending += data
            while request := _request(pending):
                head, pending = request
                writer.write(_response(head))
            await writer.drain()
    internet.open.remove(writer)
    writer.close()


def _request(pending: bytes) -> tuple[bytes, bytes] | None:
    """Cut one request off; return its head and what follows it, None while it is not all there."""
    head, whole, rest = pending.partition(b"\r\n\r\n")
    if not whole:
        return None
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        last = 0 if rest.startswith(b"0\r\n") else rest.find(b"\r\n0\r\n") + 2
        end = rest.find(b"\r\n\r\n", last)
        return (head, rest[end + 4 :]) if end >= 0 and rest[last : last + 3] == b"0\r\n" else None
    length = re.search(rb"\r\ncontent-length: ([0-9]+)", lower)
    size = int(length[1]) if length else 0
    is_early = b"\r\nexpect:" in lower
    return (head, rest[size:]) if len(rest) >= size or is_early else None


def _response(head: bytes) -> bytes:
    target = head.split(b"\r\n")[0].split(b" ")[1:2]
    parts = urlsplit(target[0].decode("latin-1") if target else "/")
    if parts.path == "/moved":
        place = parse_qs(parts.query)["to"][0]
        return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"


def _answer(internet: Internet, sock: socket.socket) -> None:
    query, sender = sock.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += query[at] + 1
    question = query[12 : at + 5]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    host = ".".join(labels).lower()
    final, addresses = internet.answers(host, kind)
    records = [_record(b"\xc0\x0c", 5, _encoded(final))] if final != host else []
    owner = _encoded(final) if final != host else b"\xc0\x0c"
    family = socket.AF_INET6 if kind == 28 else socket.AF_INET
    records += [_record(owner, kind, socket.inet_pton(family, address)) for address in addresses]
    code = 0 if final in internet.dns else 3
    header = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
    sock.sendto(header + question + b"".join(records), sender)


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _note(internet: Internet) -> None:
    """Take in all that waits at the wire."""
    assert internet.wire is not None
    with contextlib.suppress(BlockingIOError):
        while True:
            _note_one(internet, *internet.wire.recvfrom(65_536))


def _note_one(internet: Internet, data: bytes, where: tuple[str, int, int]) -> None:
    _, ether, direction, *_ = where
    if direction == socket.PACKET_OUTGOING or ether not in (0x0800, 0x86DD):
        return
    start = (data[0] & 15) * 4 if ether == 0x0800 else 40
    protocol = data[9] if ether == 0x0800 else data[6]
    there = data[16:20] if ether == 0x0800 else data[24:40]
    destination = socket.inet_ntop(socket.AF_INET if ether == 0x0800 else socket.AF_INET6, there)
    payload = data[start:]
    if protocol == TCP and payload[13] & 0x12 != 0x02:  # not the first packet of a connection
        return
    if ether == 0x86DD and (destination.startswith("ff02") or (protocol == 58 and payload[0] in NEIGHBOURS)):
        return
    port = struct.unpack_from("!H", payload, 2)[0] if protocol in (TCP, UDP) else 0
    internet.noted.append(Packet(protocol, destination, port))


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Return how many bytes the peer's kernel has not taken yet (SIOCOUTQ, tcp(7)); 0 for a closed connection."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or writer.is_closing():
        return 0
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
