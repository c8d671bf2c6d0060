"""What every peer finds: a folder, a CA, and a native TLS origin that answers 401 to whoever has no credential.

    load ─▶ peer ─▶ origin (nginx, TLS) ─▶ events.py for streams and uploads

The origin's second port asks for no credential: for the loads that go there directly, and for downloads that are spent
none on.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from moat.proxy.ca import leaf, make, private_pem

from bench.tools import find

HOST = "api.example.com"
OPEN_HOST = "open.example.com"
SECRET = "Bearer s3cr3t-of-the-bench"  # noqa: S105 - what the origin asks for; nobody else's
PATIENCE_S = 20.0

_ORIGIN = """\
worker_processes 2; daemon off; pid {folder}/origin.pid; error_log {folder}/origin.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{
  access_log off; default_type application/json; sendfile on; tcp_nodelay on; server_tokens off;
  keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {folder}/origin-body; proxy_temp_path {folder}/origin-proxy;
  fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
  server {{
    listen {address}:{port} ssl backlog=4096;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {folder}/{host}.pem; ssl_certificate_key {folder}/{host}.pem;
    if ($http_authorization != "{secret}") {{ return 401; }}
    include {folder}/locations;
  }}
  server {{
    listen {address}:{open_port} ssl backlog=4096;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {folder}/{open_host}.pem; ssl_certificate_key {folder}/{open_host}.pem;
    include {folder}/locations;
  }}
}}
"""
_LOCATIONS = """\
location / {{ return 200 '{{"ok": true, "login": "octocat", "id": 583231}}'; }}
location /file/ {{ alias {folder}/file/; default_type application/octet-stream; }}
location /events {{ proxy_pass http://127.0.0.1:{events_port}; }}
location /upload {{ proxy_pass http://127.0.0.1:{events_port}; }}
"""


@dataclass
class Ground:
    """The folder and the ports; start and stop."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=lambda: free_port())
    open_port: int = field(default_factory=lambda: free_port())
    events_port: int = field(default_factory=lambda: free_port())
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, in_front: Sequence[str] = ()) -> None:
        """Write the certificates and start the origin. in_front: what to run its nginx under."""
        self.folder.chmod(0o755)  # squid leaves root
        ca, key = make(datetime.now(UTC)), ec.generate_private_key(ec.SECP256R1())
        self.write("ca.pem", ca.certificate_pem)
        self.write("ca-with-key.pem", ca.key_pem + ca.certificate_pem)
        for host in (HOST, OPEN_HOST):
            text = leaf(ca, host, key.public_key(), datetime.now(UTC)) + private_pem(key).decode()
            self.write(f"{host}.pem", text)
        self.write("locations", _LOCATIONS.format(**vars(self)))
        self.run([sys.executable, str(Path(__file__).with_name("events.py")), str(self.events_port)], self.events_port)
        config = _ORIGIN.format(secret=SECRET, host=HOST, open_host=OPEN_HOST, **vars(self))
        command = [*in_front, str(find("nginx")), "-c", self.write("origin.conf", config)]
        self.run(command, self.port, self.address)

    def file(self, size: int) -> str:
        """Make a file of the origin's and return its path in a URL."""
        folder = self.folder / "file"
        folder.mkdir(exist_ok=True)
        with (folder / str(size)).open("wb") as out:
            out.truncate(size)
        return f"/file/{size}"

    def write(self, name: str, text: str) -> str:
        """Write a file and return its path. Readable: nothing here is a secret of anybody's."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return str(path)

    def run(self, command: Sequence[str], port: int, address: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        """Start a program and wait until it listens there."""
        with (self.folder / "output.log").open("ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.processes.append(process)
        wait_for(address, port, process)
        return process

    def stop(self) -> None:
        """End everything that was started here."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until address and port answer. Raises RuntimeError when process ends first or takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not come up")
