from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moat.api.errors import PlanConflict, RunNotFound, UsageError
from moat.daemon.extras import RoutedPort
from moat.daemon.front import Front
from moat.daemon.protocol import RouteRequest, SetupRequest
from moat.daemon.routes import Routes
from moat.paths import Home
from moat.routing.table import Table
from support.ports import free_port

from core.daemon.house import House, a_house, a_request
from core.daemon.making import OTHER_ID, RUN_ID
from core.daemon.test_routes import no_certificate, nowhere

WEB = (RoutedPort("web", 3000),)


@asynccontextmanager
async def a_front(home: Home, tmp_path: Path) -> AsyncIterator[tuple[Front, House, Table]]:
    async with a_house(home) as house:
        table, port = Table(tmp_path / "daemon" / "routes.json"), free_port()
        live = house.parts.registry.get
        routes = Routes(table, lambda: port, lambda run_id: live(run_id) is not None, nowhere, no_certificate)
        yield Front(house.runs, house.parts.registry, house.parts.store, routes), house, table
        routes.close()


async def test_a_run_comes_with_its_routes_under_its_name(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, _, table):
        await front.register(a_request(needs_door=False, endpoints=WEB))

        route = table.get("calm-otter")
        assert route is not None
        assert (route.run_id, dict(route.endpoints)) == (RUN_ID, {"web": 3000})


async def test_a_name_that_is_taken_leaves_no_run_behind(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, house, _):
        await front.register(a_request(needs_door=False, endpoints=WEB))

        with pytest.raises(PlanConflict):
            await front.register(a_request(OTHER_ID, needs_door=False, endpoints=WEB))

        assert [info.run_id for info in front.list()] == [RUN_ID]
        assert house.parts.store.read(OTHER_ID).state == "stopped"


async def test_a_live_run_that_asks_for_a_taken_name_goes_on(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, _, _):
        await front.register(a_request(needs_door=False, endpoints=WEB))
        other = await front.register(a_request(OTHER_ID, needs_door=False))

        with pytest.raises(PlanConflict):
            await front.register(a_request(OTHER_ID, needs_door=False, endpoints=WEB, auth_token=other.auth_token))

        assert OTHER_ID in [info.run_id for info in front.list()]


async def test_what_cannot_be_routed_is_not_begun(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, house, _):
        with pytest.raises(UsageError):
            await front.register(a_request(name="a_b", needs_door=False, endpoints=WEB))

        assert not house.parts.store.exists(RUN_ID)


async def test_one_run_is_told_live_and_ended_and_never_with_a_token(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, _, _):
        made = await front.register(a_request(needs_door=False))
        front.tell_container(made.auth_token, "1")
        assert front.one(RUN_ID).state == "running"
        assert made.auth_token not in str(front.one(RUN_ID))

        await front.end(made.auth_token, 3)

        assert (front.one(RUN_ID).state, front.one(RUN_ID).exit_code) == ("stopped", 3)
        with pytest.raises(RunNotFound):
            front.one(OTHER_ID)
        with pytest.raises(UsageError):
            front.one("../../etc/passwd")


async def test_routes_come_and_go_beside_runs(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, _, table):
        await front.register(a_request(needs_door=False))

        front.route("keen-lark", RouteRequest(RUN_ID, WEB))
        assert [route.agent for route in table] == ["keen-lark"]
        front.unroute("keen-lark")
        assert len(table) == 0


async def test_a_setup_is_the_runs_own(home: Home, tmp_path: Path) -> None:
    async with a_front(home, tmp_path) as (front, _, _):
        assert "api.apple.test" in (await front.setup(SetupRequest(grants=("apple",)))).hosts
