from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moat.api.endpoints import Upstream
from moat.api.http import Authority
from moat.proxy.refusal import Refusal
from moat.proxy.server import dialler as module
from moat.proxy.server.dialler import Dialler
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import DialSettings, client_context
from support.tls_server import TlsServer, tls_server
from support.upstream import make_test_ca

HOST = "a.example"
AUTHORITY = Authority("https", HOST, 443)
CA, OTHER = make_test_ca(), make_test_ca()


def a_dialler(server: TlsServer, roots: str = CA.pem) -> Dialler:
    pins = {HOST: ("127.0.0.1", server.port)}
    return Dialler(DialSettings(client_context(""), pins), roots)


async def talked(dialler: Dialler, upstream: Upstream | None = None, protocols: tuple[str, ...] = ("http/1.1",)) -> str:
    """Dial, ask something so that tickets come, remember, hang up; return what was agreed on."""
    stream = await dialler.dial(AUTHORITY, upstream, protocols)
    assert isinstance(stream, TlsStream)
    stream.write(b"x\r\n\r\n")
    async with asyncio.timeout(30):
        assert await stream.more()
    dialler.remember(AUTHORITY, upstream, protocols, stream)
    stream.abort()
    return stream.protocol


async def test_a_session_is_resumed_by_the_same_offer_and_no_other() -> None:
    with tls_server(CA.server_context(HOST)) as server:
        dialler = a_dialler(server)
        for protocols in (("http/1.1",), ("http/1.1",), ("h2", "http/1.1")):
            await talked(dialler, None, protocols)

    assert [each.was_resumed for each in server.handshakes] == [False, True, False]


async def test_an_endpoints_upstream_is_trusted_by_its_own_authority_only() -> None:
    with tls_server(CA.server_context(HOST)) as server:
        dialler = a_dialler(server, roots="")
        await talked(dialler, Upstream(HOST, ca=CA.pem))
        for upstream in (None, Upstream(HOST, ca=OTHER.pem)):
            with pytest.raises(Refusal) as refusal:
                await dialler.dial(AUTHORITY, upstream, ())
            assert refusal.value.kind == "certificate"


async def test_contexts_and_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MAX_CONTEXTS", 2)
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    with tls_server(CA.server_context(HOST)) as server:
        dialler = a_dialler(server)
        for number in range(4):
            await talked(dialler, None, ("http/1.1", f"x-{number}"))

    assert (len(dialler._contexts), len(dialler._sessions)) == (2, 2)
