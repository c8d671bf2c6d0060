"""A small HTTPS service on loopback that stands in for the internet: it wants a credential and remembers who asked.

    with running_upstream(authorization="Bearer s3cr3t-token") as upstream:
        settings: roots = upstream.ca_pem, resolve = upstream.pins("api.example.com")

    /              200 {"ok": true, "path": …}                 /sse        one event, waits for go_on(), a second one
    /echo          the body back                               /big?n=…    n bytes, content-length
    /chunked       three chunks                                /ws         a websocket that echoes
    /redirect      302 to /                                    /bytes      how many body bytes came

Everything answers 401 unless the Authorization header is the one demanded. Runs in a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_HOSTS = ("localhost", "127.0.0.1", "*.example.com", "*.example.org", "api.github.com", "uploads.github.com",
                 "github.com")  # fmt: skip


@dataclass(frozen=True)
class MadeCa:
    """A throw-away authority, and server certificates of it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return a server's TLS context with a certificate for names (DNS names, wildcards or addresses)."""
        certificate, key = self.leaf(names, expired)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + key)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def leaf(self, names: tuple[str, ...], expired: bool) -> tuple[bytes, bytes]:
        """Return a certificate and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        end = now - datetime.timedelta(minutes=5) if expired else now + datetime.timedelta(days=2)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream under test")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def make_test_ca() -> MadeCa:
    """Return a fresh authority, valid for two days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moat tests: the internet's authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_ca_usage(), critical=True)
        .sign(key, hashes.SHA256())
    )
    return MadeCa(certificate, key)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    host: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int

    def header(self, name: str) -> str | None:
        """Return the first value of name, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Upstream:
    """The running service. port: TLS; http_port: the same without TLS. seen: what came, oldest first."""

    ca: MadeCa
    authorization: str | None
    port: int = 0
    http_port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    closed_early: threading.Event = field(default_factory=threading.Event)
    uploading: threading.Event = field(default_factory=threading.Event)
    _go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def ca_pem(self) -> str:
        return self.ca.pem

    def pins(self, *hosts: str) -> dict[str, str]:
        """Return `upstream.resolve` settings that lead hosts here."""
        return {host: f"127.0.0.1:{self.port}" for host in hosts}

    def go_on(self) -> None:
        """Let /sse send its second event."""
        self._go_on.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        body = b"" if request.path == "/bytes" else await request.read()
        size = await self._drained(request) if request.path == "/bytes" else len(body)
        peer = request.get_extra_info("peername")
        self.connections.add(peer[:2])
        headers = tuple(request.headers.items())
        self.seen.append(Seen(request.method, request.host, request.path_qs, headers, size))
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            return web.json_response({"error": "who are you?"}, status=401)
        if request.path == "/ws":
            return await _websocket(request)
        if request.path == "/sse":
            return await self._events(request)
        if request.path == "/big":
            return await _big(request, int(request.query["n"]))
        if request.path == "/chunked":
            return await _chunked(request)
        return _simple(request, body, size)

    async def _drained(self, request: web.Request) -> int:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            self.uploading.set()
        return size

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        try:
            while not self._go_on.is_set():  # a thread's event: asked often, never blocking the loop
                await asyncio.sleep(0.005)
                if request.transport is None or request.transport.is_closing():
                    raise ConnectionResetError
            await response.write(b"data: second\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.closed_early.set()
            raise
        return response


@contextlib.contextmanager
def running_upstream(
    authorization: str | None = None, hosts: tuple[str, ...] = DEFAULT_HOSTS, ca: MadeCa | None = None
) -> Iterator[Upstream]:
    """Run the service in a thread; it demands authorization (None: anything goes) and has a certificate for hosts."""
    upstream = Upstream(ca or make_test_ca(), authorization)
    loop = asyncio.new_event_loop()
    ready, stopping = threading.Event(), asyncio.Event()
    context = upstream.ca.server_context(*hosts)
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(upstream, context, ready, stopping),))
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the upstream did not start")
        yield upstream
    finally:
        upstream.go_on()
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()


async def _serve(upstream: Upstream, context: ssl.SSLContext, ready: threading.Event, stopping: asyncio.Event) -> None:
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{tail:.*}", upstream.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    secure = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    plain = web.TCPSite(runner, "127.0.0.1", 0)
    await secure.start()
    await plain.start()
    upstream.port, upstream.http_port = (address[1] for address in runner.addresses)
    ready.set()
    await stopping.wait()
    await runner.cleanup()


def _simple(request: web.Request, body: bytes, size: int) -> web.StreamResponse:
    if request.path == "/echo":
        return web.Response(body=body)
    if request.path == "/bytes":
        return web.json_response({"bytes": size})
    if request.path.startswith("/api/oauth/"):
        return web.Response(status=403, text="no")
    if request.path == "/redirect":
        return web.Response(status=302, headers={"Location": "/"})
    return web.json_response({"ok": True, "path": request.path})


async def _big(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(size)})
    await response.prepare(request)
    piece = b"x" * 65_536
    while size > 0:
        await response.write(piece[:size])
        size -= len(piece)
    return response


async def _chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for piece in (b"one,", b"two,", b"three"):
        await response.write(piece)
    return response


async def _websocket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(f"echo {message.data}")
    return socket


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
