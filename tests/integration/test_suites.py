from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path

from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from support.living import ended_after


def test_a_real_worker_prefers_aes_128(tmp_path: Path) -> None:
    with ended_after(Home(private_folder(tmp_path / "home"))) as home:
        made = ensure_running(home).register(RegisterRequest(new_run_id(), needs_door=False))
        assert cipher(made) == ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)


def cipher(made: RegisterResponse) -> object:
    """Return what a client and the worker agree on: name, protocol, bits."""
    login = base64.b64encode(f"moat:{made.auth_token}".encode()).decode()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whom it speaks to is others' tests
    with socket.create_connection(("127.0.0.1", made.proxy_port)) as client:
        head = f"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: Basic {login}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        with context.wrap_socket(client, server_hostname="a.example") as tls:
            return tls.cipher()
