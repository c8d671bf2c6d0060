from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moat.api.errors import PlanConflict, RunNotFound, UsageError
from moat.daemon import routes as module
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RouteRequest
from moat.daemon.routes import Routes, listen_on_loopback, route_of
from moat.routing.table import Table, read_routes
from support.living import until
from support.ports import free_port

from core.daemon.making import OTHER_ID, RUN_ID, an_info

WEB = (RoutedPort("web", 3000),)
OTHERS = (RoutedPort("api", 4000),)


async def nowhere(run_id: str, port: int) -> socket.socket:
    raise ConnectionError("the run has no open door")


def no_certificate(name: str) -> ssl.SSLContext:
    raise AssertionError(name)


def a_daemons_routes(tmp_path: Path, port: int, *live: str) -> Routes:
    table = Table(tmp_path / "daemon" / "routes.json")
    return Routes(table, lambda: port, lambda run_id: run_id in live, nowhere, no_certificate)


@asynccontextmanager
async def some_routes(tmp_path: Path, port: int, *live: str) -> AsyncIterator[Routes]:
    async with served(a_daemons_routes(tmp_path, port, *live)) as routes:
        yield routes


@asynccontextmanager
async def served(routes: Routes) -> AsyncIterator[Routes]:
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(routes.forever())
        await asyncio.sleep(0)
        try:
            yield routes
        finally:
            serving.cancel()


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


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


async def test_each_port_is_published_on_loopback_until_its_run_is_over(tmp_path: Path) -> None:
    wanted = free_port()
    async with some_routes(tmp_path, free_port(), RUN_ID) as routes:
        made = routes.put("calm-otter", RouteRequest(RUN_ID, (RoutedPort("web", 3000, wanted), *OTHERS)))

        assert made.published["web"] == wanted
        assert set(made.published) == {"web", "api"}
        assert read_routes(tmp_path / "daemon" / "routes.json")[0].published == made.published
        assert is_open(wanted)

        routes.run_stopped(an_info(), 0)
        await until(lambda: not any(map(is_open, made.published.values())))


async def test_a_published_port_that_is_taken_costs_the_whole_route(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        async with some_routes(tmp_path, free_port(), RUN_ID) as routes:
            with pytest.raises(UsageError, match=f"port {number}, where web is to be published"):
                routes.put("calm-otter", RouteRequest(RUN_ID, (RoutedPort("web", 3000, number),)))

            assert read_routes(tmp_path / "daemon" / "routes.json") == []


async def test_the_next_daemon_publishes_the_same_ports_as_soon_as_they_are_free(tmp_path: Path) -> None:
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        made = routes.put("calm-otter", RouteRequest(RUN_ID, (*WEB, *OTHERS)))
    with socket.create_server(("127.0.0.1", made.published["web"])):
        routes = a_daemons_routes(tmp_path, port, RUN_ID)
        routes.restore({RUN_ID})
    async with served(routes):
        await until(lambda: all(map(is_open, made.published.values())))
    assert read_routes(tmp_path / "daemon" / "routes.json")[0].published == made.published


async def test_a_published_port_that_is_gone_for_good_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    port = free_port()
    async with some_routes(tmp_path, port, RUN_ID) as routes:
        made = routes.put("calm-otter", RouteRequest(RUN_ID, WEB))
    with socket.create_server(("127.0.0.1", made.published["web"])):
        routes = a_daemons_routes(tmp_path, port, RUN_ID)
        routes.restore({RUN_ID})
        async with served(routes):
            await until(lambda: "ports are not published any more" in caplog.text)
            await until(lambda: read_routes(tmp_path / "daemon" / "routes.json")[0].published == {})


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
