from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector
from moat.api.errors import PlanConflict, RunNotFound
from moat.api.runs import RunInfo
from moat.daemon import handlers
from moat.daemon.events import Events
from moat.daemon.extras import RoutedPort
from moat.daemon.handlers import Handlers
from moat.daemon.protocol import RouteRequest, RouteResponse
from moat.daemon.server import Server, bind, serve
from moat.paths import socket_address

from core.daemon.making import OTHER_ID, RUN_ID, an_info, until
from core.daemon.test_server import HEALTH, Service, call


class Front:
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def one(self, run_id: str) -> RunInfo:
        if run_id != RUN_ID:
            raise RunNotFound(f"no run {run_id}")
        return an_info(requests=7)

    def route(self, agent: str, request: RouteRequest) -> RouteResponse:
        self.asked.append((agent, request))
        if agent == "taken":
            raise PlanConflict("the name taken leads elsewhere")
        return RouteResponse(agent, 8080, {"web": "http://web.a.localhost:8080/"})

    def unroute(self, agent: str) -> None:
        self.asked.append(agent)


@asynccontextmanager
async def serving(tmp_path: Path, events: Events | None = None) -> AsyncIterator[Front]:
    front = Front()
    more = Handlers(front, Events() if events is None else events, lambda: "moat_runs 3\n").add_to
    server = Server(Service(), lambda: HEALTH, lambda: None, more)
    runner = await serve(server.application(), bind(tmp_path / "daemon" / "daemon.sock"))
    try:
        yield front
    finally:
        await runner.cleanup()


async def test_one_run_is_told_with_its_counters(tmp_path: Path) -> None:
    async with serving(tmp_path):
        status, _, info = await call(tmp_path, "GET", f"/v1/runs/{RUN_ID}")
        assert (status, info["requests"]) == (200, 7)
        assert "token" not in json.dumps(info)
        status, _, refusal = await call(tmp_path, "GET", f"/v1/runs/{OTHER_ID}")
        assert (status, refusal["error"]["code"]) == (404, "RunNotFound")


async def test_routes_are_put_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as front:
        body = {"run_id": RUN_ID, "endpoints": [{"name": "web", "port": 3000, "new": 1}], "from_the_future": True}
        status, _, made = await call(tmp_path, "POST", "/v1/routes/calm-otter", json.dumps(body).encode())
        assert (status, made["urls"]) == (200, {"web": "http://web.a.localhost:8080/"})
        assert (await call(tmp_path, "DELETE", "/v1/routes/calm-otter"))[0] == 204
        status, _, refusal = await call(tmp_path, "POST", "/v1/routes/taken", json.dumps(body).encode())
        assert (status, refusal["error"]["code"]) == (409, "PlanConflict")

    wanted = RouteRequest(RUN_ID, (RoutedPort("web", 3000),))
    assert front.asked == [("calm-otter", wanted), "calm-otter", ("taken", wanted)]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"run_id": 1, "endpoints": []}', b'{"run_id": "x", "endpoints": "s3cr3t"}']
)
async def test_a_body_that_does_not_fit_is_told_without_its_values(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path) as front:
        status, kind, refusal = await call(tmp_path, "POST", "/v1/routes/a", body)

    assert (status, kind) == (400, "application/json; charset=utf-8")
    assert refusal["error"]["code"] == "UsageError"
    assert "s3cr3t" not in json.dumps(refusal)
    assert front.asked == []


async def listen(tmp_path: Path, path: str = "/v1/events") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(socket_address(tmp_path / "daemon" / "daemon.sock"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: moat\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(30):
        head = await reader.readuntil(b": listening\n\n")
    assert b"text/event-stream" in head
    return reader, writer


async def test_events_come_as_they_happen_until_the_daemon_leaves(tmp_path: Path) -> None:
    events = Events()
    async with serving(tmp_path, events):
        reader, writer = await listen(tmp_path, f"/v1/events?run={RUN_ID}")
        events.run_started(an_info(OTHER_ID))
        events.run_started(an_info())
        async with asyncio.timeout(30):
            first = await reader.readuntil(b"\n\n")
            assert b"event: run_started" in first
            assert RUN_ID.encode() in first
            events.close()
            assert b"event: closed" in await reader.read()
        writer.close()
        await until(lambda: len(events) == 0)


async def test_a_silent_stream_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "STILL_HERE_S", 0.01)
    events = Events()
    async with serving(tmp_path, events):
        reader, writer = await listen(tmp_path)
        async with asyncio.timeout(30):
            await reader.readuntil(b": still here\n\n")
        writer.close()
        await until(lambda: len(events) == 0)


async def test_a_listener_that_reads_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "WRITE_TIMEOUT_S", 0.2)
    events = Events(length=8)
    async with serving(tmp_path, events):
        _, writer = await listen(tmp_path)
        assert len(events) == 1
        async with asyncio.timeout(30):
            while len(events):
                events.tell("thing", text="x" * 100_000)
                await asyncio.sleep(0.001)
        writer.close()


async def test_more_listeners_than_there_is_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moat.daemon.events.MAX_LISTENERS", 0)
    async with serving(tmp_path):
        status, _, refusal = await call(tmp_path, "GET", "/v1/events")

    assert (status, refusal["error"]["message"]) == (503, "too many listeners")


async def test_metrics_are_text(tmp_path: Path) -> None:
    there = UnixConnector(str(tmp_path / "daemon" / "daemon.sock"))
    async with (
        serving(tmp_path),
        ClientSession(connector=there) as session,
        session.get("http://moat/v1/metrics") as got,
    ):
        assert (got.status, await got.text()) == (200, "moat_runs 3\n")
        assert got.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
