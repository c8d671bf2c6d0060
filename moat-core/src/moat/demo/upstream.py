"""The demo's API: HTTPS on loopback, 401 to anybody without the key. Remembers what each request carried.

Runs in threads of the demo's own process and ends with it.
"""

from __future__ import annotations

import contextlib
import datetime
import hmac
import http.server
import ssl
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME = datetime.timedelta(hours=1)


@dataclass
class Api:
    """The running API. seen: for each request its path and whether it carried the real key; never the key."""

    key: str = field(repr=False)
    certificate: str
    port: int = 0
    seen: list[tuple[str, bool]] = field(default_factory=list)


@contextlib.contextmanager
def running_api(host: str, key: str) -> Iterator[Api]:
    """Serve on a free loopback port, with a certificate for host that signs itself."""
    certificate, private_key = _self_signed(host)
    api = Api(key, certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:  # 0600; OpenSSL reads chains from files only
        file.write((certificate + private_key).encode())
        file.flush()
        context.load_cert_chain(file.name)
    # The handshake is left to the request's own thread: a client that never speaks must not hold up the others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(api: Api) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            is_real = hmac.compare_digest(given.encode(), f"Bearer {api.key}".encode())
            api.seen.append((self.path, is_real))
            body = b'{"orders": 3}\n' if is_real else b'{"error": "who are you?"}\n'
            self.send_response(200 if is_real else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # the standard library's name
            return None

    return Handler


def _self_signed(host: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moat demo")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(encoding).decode(), plain.decode()
