"""`requests` over a unix socket, for clients that take a session: schemathesis."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection

ORIGIN = "http://moat"


def session_of(path: Path) -> requests.Session:
    """Return a session whose requests to ORIGIN go to the socket at path."""
    session = requests.Session()
    session.trust_env = False
    session.mount(ORIGIN, _Adapter(path))
    return session


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return _Pool(self._path)

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        del proxies
        return request.path_url


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__("moat")

    def _new_conn(self) -> HTTPConnection:
        return _Connection(self._path)


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__("moat")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))
