"""What a live run may do is changed over the daemon's socket while its tunnels are open; the next request feels it.

POST /v1/runs with the run's token ─▶ daemon ─▶ worker ─▶ open tunnels of HTTP/1.1 and HTTP/2, upgraded ones too
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from h2 import events
from h2.connection import H2Connection
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore
from support.living import SECRET, ended_after, granted
from support.upstream import Upstream, running_upstream

HOST = "api.github.com"
PATIENCE_S = 30.0
DENIED = ("deny * api.github.com/**",)
NO_STREAMS = ("deny GET api.github.com/sse",)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    with ended_after(granted(tmp_path / "home", upstream)) as home:
        yield home


@dataclass
class Live:
    """A registered run without a door, and how it is changed."""

    home: Home
    client: DaemonClient
    asked: RegisterRequest
    port: int
    token: str

    def change(self, **changes: tuple[str, ...] | str) -> None:
        """Register the run again; it is in force when this returns."""
        self.client.register(replace(self.asked, auth_token=self.token, **changes))  # type: ignore[arg-type] # its fields

    async def tunnel(self, *protocols: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a tunnel to the host, as this run."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        basic = base64.b64encode(f"moat:{self.token}".encode()).decode()
        writer.write(
            f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n".encode()
        )
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        context = ssl.create_default_context(cafile=str(self.home.ca / "ca.pem"))
        context.set_alpn_protocols(list(protocols))
        await writer.start_tls(context, server_hostname=HOST)
        return reader, writer

    def reasons(self) -> list[str]:
        return [each.reason for each in read_exchanges(RunStore(self.home).network(self.asked.run_id))]


@contextlib.asynccontextmanager
async def a_live_run(home: Home) -> AsyncIterator[Live]:
    client = ensure_running(home)
    asked = RegisterRequest(new_run_id(), grants=("github",), runtime="process", needs_door=False, command=("true",))
    made = client.register(asked)
    yield Live(home, client, asked, made.proxy_port, made.auth_token)
    client.end(made.auth_token, 0)


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/user") -> int:
    """Ask over HTTP/1.1; return the status, with the body read."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
    return int(head.split()[1])


@dataclass
class Http2:
    """A client of HTTP/2 over a tunnel."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    h2: H2Connection = field(default_factory=H2Connection)
    seen: list[events.Event] = field(default_factory=list)

    def ask(self, path: str = "/user") -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)]
        self.h2.send_headers(stream, head, end_stream=True)
        self.writer.write(self.h2.data_to_send())
        return stream

    async def until(self, kind: type[events.Event], stream: int) -> events.Event:
        """Read until an event of a stream came, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.seen:
                    if isinstance(event, kind) and getattr(event, "stream_id", 0) == stream:
                        return event
                data = await self.reader.read(65_536)
                assert data, "the connection ended"
                self.seen += self.h2.receive_data(data)
                self.writer.write(self.h2.data_to_send())

    async def status(self, stream: int) -> int:
        event = await self.until(events.ResponseReceived, stream)
        assert isinstance(event, events.ResponseReceived)
        return int(dict(event.headers)[b":status"])


async def over_http2(live: Live) -> Http2:
    made = Http2(*await live.tunnel("h2"))
    made.h2.initiate_connection()
    return made


async def test_an_open_tunnel_follows_the_policy(home: Home, upstream: Upstream) -> None:
    async with a_live_run(home) as live:
        tunnel = await live.tunnel("http/1.1")
        before = await get(*tunnel)
        live.change(network_rules=DENIED)
        denied = await get(*tunnel)
        live.change(network_policy="strict")  # which lets the hosts of grants out
        after = await get(*tunnel)
        live.change(network_policy="strict", grants=())
        strict = await get(*tunnel)
        tunnel[1].close()

    assert (before, denied, after, strict) == (200, 403, 200, 403)
    assert len(upstream.seen) == 2


async def test_an_open_tunnel_loses_a_grant_and_gets_it_back(home: Home, upstream: Upstream) -> None:
    async with a_live_run(home) as live:
        tunnel = await live.tunnel("http/1.1")
        statuses = [await get(*tunnel)]
        for grants in ((), ("github",)):
            live.change(grants=grants)
            statuses.append(await get(*tunnel))
        tunnel[1].close()

    assert statuses == [200, 401, 200]
    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {SECRET}", None, f"Bearer {SECRET}"]


async def test_a_connection_of_http_2_follows_too_and_what_streams_is_ended(home: Home, upstream: Upstream) -> None:
    async with a_live_run(home) as live:
        client = await over_http2(live)
        streaming = client.ask("/sse")
        await client.until(events.DataReceived, streaming)
        before = await client.status(client.ask())
        live.change(network_rules=DENIED)
        reset = await client.until(events.StreamReset, streaming)
        denied = await client.status(client.ask())
        live.change()
        after = await client.status(client.ask())
        client.writer.close()

    assert (before, denied, after) == (200, 403, 200)
    assert isinstance(reset, events.StreamReset)
    assert int(reset.error_code) == 8
    assert await asyncio.to_thread(upstream.closed_early.wait, PATIENCE_S)
    assert "the policy does not let it out any more" in live.reasons()


async def test_a_rule_ends_the_streams_that_it_is_for_and_no_others(home: Home, upstream: Upstream) -> None:
    async with a_live_run(home) as live:
        client = await over_http2(live)
        streaming = client.ask("/sse?x")
        await client.until(events.DataReceived, streaming)
        live.change(network_rules=("deny POST api.github.com/**",))
        assert await client.status(client.ask()) == 200
        assert not any(isinstance(event, events.StreamReset) for event in client.seen)
        assert not upstream.closed_early.is_set()
        live.change(network_rules=NO_STREAMS)
        await client.until(events.StreamReset, streaming)
        client.writer.close()


async def test_a_stream_that_spends_a_grant_is_ended_with_it(home: Home, upstream: Upstream) -> None:
    del upstream
    async with a_live_run(home) as live:
        client = await over_http2(live)
        streaming = client.ask("/sse")
        await client.until(events.DataReceived, streaming)
        live.change(grants=())
        await client.until(events.StreamReset, streaming)

        assert await client.status(client.ask()) == 401
        client.writer.close()


async def over(reader: asyncio.StreamReader) -> None:
    """Read until the connection has ended."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await reader.read(65_536):
                pass


async def streaming_events(live: Live) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a tunnel of HTTP/1.1 in which events come without end."""
    reader, writer = await live.tunnel("http/1.1")
    writer.write(f"GET /sse HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"first\n\n")
    return reader, writer


@pytest.mark.parametrize("change", [{"network_rules": DENIED}, {"grants": ()}], ids=["denied", "grant gone"])
async def test_an_answer_over_http_1_that_does_not_end_is_ended(
    change: dict[str, tuple[str, ...]], home: Home, upstream: Upstream
) -> None:
    async with a_live_run(home) as live:
        reader, writer = await streaming_events(live)
        live.change(network_rules=("deny POST api.github.com/**",))
        assert not upstream.closed_early.is_set()
        live.change(**change)
        await over(reader)
        writer.close()

    assert await asyncio.to_thread(upstream.closed_early.wait, PATIENCE_S)
    assert set(live.reasons()) & {"the policy does not let it out any more", "a grant that was spent on it is gone"}


async def test_an_upload_over_http_1_that_does_not_end_is_ended(home: Home, upstream: Upstream) -> None:
    async with a_live_run(home) as live:
        reader, writer = await live.tunnel("http/1.1")
        writer.write(f"POST /bytes HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(b"5\r\nhello\r\n")
        await writer.drain()
        assert await asyncio.to_thread(upstream.uploading.wait, PATIENCE_S)
        live.change(network_rules=DENIED)
        await over(reader)
        writer.close()

    assert "the policy does not let it out any more" in live.reasons()


async def test_a_websocket_is_closed_when_the_daemon_is_told_to_deny_it(home: Home, upstream: Upstream) -> None:
    del upstream
    async with a_live_run(home) as live:
        reader, writer = await live.tunnel("http/1.1")
        key = base64.b64encode(bytes(16)).decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        live.change(network_rules=DENIED)
        await over(reader)
        writer.close()


async def test_a_change_that_is_refused_changes_nothing(home: Home, upstream: Upstream) -> None:
    from moat.api.errors import MoatError

    async with a_live_run(home) as live:
        tunnel = await live.tunnel("http/1.1")
        for wrong in ({"network_rules": ("permit everything",)}, {"grants": ("nothing-like-this",)}):
            with pytest.raises(MoatError):
                live.change(**wrong)
            assert await get(*tunnel) == 200
        tunnel[1].close()
    assert len(upstream.seen) == 2


async def test_a_run_that_ends_ends_its_connections_of_either_version(home: Home) -> None:
    async with a_live_run(home) as live:
        one, two = await live.tunnel("http/1.1"), await over_http2(live)
        assert await get(*one) == 200
        streaming = two.ask("/sse")
        await two.until(events.DataReceived, streaming)
    for reader, writer in (one, (two.reader, two.writer)):
        await over(reader)
        writer.close()
