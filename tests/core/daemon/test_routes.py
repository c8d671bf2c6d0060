from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moat.api.errors import PlanConflict, RunNotFound, UsageError
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RouteRequest
from moat.daemon.routes import Routes, listen_on_loopback, route_of
from moat.routing.table import Table
from support.ports import free_port

from core.daemon.making import OTHER_ID, RUN_ID, an_info

WEB = (RoutedPort("web", 3000),)


async def nowhere(run_id: str, port: int) -> socket.socket:
    raise ConnectionError("the run has no open door")


def no_certificate(name: str) -> ssl.SSLContext:
    raise AssertionError(name)


@asynccontextmanager
async def some_routes(tmp_path: Path, port: int, *live: str) -> AsyncIterator[Routes]:
    table = Table(tmp_path / "daemon" / "routes.json")
    routes = Routes(table, lambda: port, lambda run_id: run_id in live, nowhere, no_certificate)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(routes.forever())
        await asyncio.sleep(0)
        try:
            yield routes
        finally:
            serving.cancel()


async def status(port: int, host: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer.split(b" ")[1]


async def test_the_port_is_taken_with_the_first_route_and_served(tmp_path: Path) -> None:
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        assert routes.port == 0
        with socket.create_server(("127.0.0.1", port)):
            pass  # nobody has it

        made = routes.put("calm-otter", RouteRequest(RUN_ID, WEB))

        assert (made.port, made.urls) == (port, {"web": f"http://web.calm-otter.localhost:{port}/"})
        assert await status(port, "web.calm-otter.localhost") == b"502"
        assert await status(port, "localhost") == b"200"
        routes.remove("calm-otter")
        routes.remove("calm-otter")
        assert await status(port, "web.calm-otter.localhost") == b"404"


async def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with some_routes(tmp_path, port, RUN_ID) as routes:
            with pytest.raises(UsageError, match=f"port {port}") as refused:
                routes.put("calm-otter", RouteRequest(RUN_ID, WEB))

    assert "routing: {port:" in refused.value.hint


async def test_a_run_s_routes_end_with_it(tmp_path: Path) -> None:
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID, OTHER_ID) as routes:
        routes.put("calm-otter", RouteRequest(RUN_ID, WEB))
        with pytest.raises(PlanConflict):
            routes.put("calm-otter", RouteRequest(OTHER_ID, WEB))

        routes.run_stopped(an_info(), 0)

        routes.put("calm-otter", RouteRequest(OTHER_ID, WEB))


async def test_nothing_is_routed_into_what_is_no_live_run(tmp_path: Path) -> None:
    async with some_routes(tmp_path, free_port()) as routes:
        with pytest.raises(RunNotFound):
            routes.put("calm-otter", RouteRequest(RUN_ID, WEB))
        assert routes.port == 0


async def test_the_next_daemon_serves_the_same_routes(tmp_path: Path) -> None:
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        routes.put("calm-otter", RouteRequest(RUN_ID, WEB))
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        routes.restore({RUN_ID})
        assert await status(port, "web.calm-otter.localhost") == b"502"


async def test_a_port_that_is_gone_at_the_next_start_costs_the_routes_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        routes.put("calm-otter", RouteRequest(RUN_ID, WEB))
    with socket.create_server(("127.0.0.1", port)):
        async with some_routes(tmp_path, port, RUN_ID) as routes:
            routes.restore({RUN_ID})

    assert "nothing is routed" in caplog.text


def test_only_this_machine_can_connect() -> None:
    listeners = listen_on_loopback(free_port())

    assert {each.getsockname()[0] for each in listeners} <= {"127.0.0.1", "::1"}
    for each in listeners:
        each.close()


@pytest.mark.parametrize(
    ("agent", "ports"),
    [
        ("Calm", WEB),
        ("a_b", WEB),
        ("a", ()),
        ("a", (RoutedPort("web", 0),)),
        ("a", (RoutedPort("web", 1), RoutedPort("web", 2))),
    ],
)
def test_what_cannot_be_an_address_is_refused(agent: str, ports: tuple[RoutedPort, ...]) -> None:
    with pytest.raises(UsageError):
        route_of(agent, RUN_ID, ports)
