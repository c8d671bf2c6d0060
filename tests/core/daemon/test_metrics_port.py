from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientConnectorError, ClientSession
from moat.daemon.metrics_port import serve_metrics
from support.ports import free_port


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[ClientSession]:
    async with asyncio.TaskGroup() as group, ClientSession(f"http://127.0.0.1:{port}") as session:
        task = group.create_task(serve_metrics(port, lambda: "moat_runs 3\n"))
        try:
            yield session
        finally:
            task.cancel()


async def asked(session: ClientSession, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    for _ in range(600):
        try:
            async with session.get(path, headers=headers) as response:
                return response.status, response.headers["Content-Type"], await response.text()
        except ClientConnectorError:
            await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


async def test_metrics_are_read_on_loopback_and_nothing_else_is() -> None:
    async with serving(free_port()) as session:
        status, kind, text = await asked(session)
        assert (status, text) == (200, "moat_runs 3\n")
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert (await asked(session, "/v1/runs"))[0] == 404


async def test_a_page_that_comes_under_another_name_gets_nothing() -> None:
    async with serving(free_port()) as session:
        assert (await asked(session, Host="evil.example:9464"))[0] == 403
        assert (await asked(session, Host="localhost:9464"))[0] == 200


async def test_without_a_port_nobody_listens() -> None:
    async with asyncio.timeout(30):
        await serve_metrics(0, str)


async def test_a_port_that_is_taken_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(30):
                await serve_metrics(taken.getsockname()[1], str)

    assert [each.message for each in caplog.records] == ["metrics are not served on loopback"]
