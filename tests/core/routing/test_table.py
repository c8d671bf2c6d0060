from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.errors import PlanConflict, UsageError
from moat.routing.table import MAX_AGENTS, Route, Table, check, read_routes

ONE, OTHER = "run_0123456789ab", "run_ba9876543210"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon" / "routes.json"


def test_a_route_is_found_until_its_run_is_over(file: Path) -> None:
    table = Table(file)
    table.put(Route("calm-otter", ONE, {"web": 3000}))
    table.put(Route("keen-lark", OTHER, {"api": 4000}))

    table.remove_run(ONE)

    assert [route.agent for route in table] == ["keen-lark"]
    assert table.get("calm-otter") is None


def test_a_name_that_is_taken_is_refused_and_its_route_stays(file: Path) -> None:
    table = Table(file)
    table.put(Route("calm-otter", ONE, {"web": 3000}))

    with pytest.raises(PlanConflict, match=ONE):
        table.put(Route("calm-otter", OTHER, {"web": 4000}))

    assert table.get("calm-otter") == Route("calm-otter", ONE, {"web": 3000})


def test_a_run_may_change_its_own_route(file: Path) -> None:
    table = Table(file)
    table.put(Route("calm-otter", ONE, {"web": 3000}))
    table.put(Route("calm-otter", ONE, {"api": 4000}))

    found = table.get("calm-otter")
    assert found is not None
    assert found.endpoints == {"api": 4000}


def test_where_ports_are_published_is_kept_and_checked(file: Path) -> None:
    route = Route("calm-otter", ONE, {"web": 3000}, {"web": 13000})
    Table(file).put(route)

    assert read_routes(file) == [route]
    for published in ({"api": 13000}, {"web": 0}, {"web": "x"}):
        with pytest.raises(UsageError, match="published"):
            check(Route("calm-otter", ONE, {"web": 3000}, published))  # type: ignore[arg-type] # as a file may say


def test_the_next_daemon_knows_the_routes_of_runs_that_live(file: Path) -> None:
    table = Table(file)
    table.put(Route("calm-otter", ONE, {"web": 3000}))
    table.put(Route("keen-lark", OTHER, {"api": 4000}))

    after = Table(file)
    after.load({OTHER})

    assert list(after) == [Route("keen-lark", OTHER, {"api": 4000})]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"version": 9, "routes": {}}',
        '{"version": 1, "routes": {"../x": {"run_id": "r", "endpoints": {"a": 1}}}}',
        '{"version": 1, "routes": {"a": {"run_id": "r", "endpoints": {"a": "x"}}}}',
        '{"version": 1, "routes": {"a": 7}}',
    ],
)
def test_a_broken_file_is_set_aside_and_nothing_is_routed(file: Path, content: str) -> None:
    file.parent.mkdir(mode=0o700)
    file.write_text(content)
    table = Table(file)

    table.load({"r"})

    assert len(table) == 0
    assert not file.exists()
    assert file.with_name("routes.json.broken").read_text() == content


def test_a_disk_that_cannot_be_written_costs_only_the_memory_of_it(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.write_text("in the way")
    table = Table(file)

    table.put(Route("calm-otter", ONE, {"web": 3000}))

    assert table.get("calm-otter") is not None
    assert "routes could not be written down" in caplog.text


@pytest.mark.parametrize(
    "route",
    [
        Route("Calm", ONE, {"web": 1}),
        Route("a", ONE, {}),
        Route("a", ONE, {"w.x": 1}),
        Route("a", ONE, {"web": 0}),
        Route("a", ONE, {"web": 65_536}),
        Route("a", ONE, {"web": True}),
    ],
)
def test_what_cannot_be_an_address_is_refused(route: Route) -> None:
    with pytest.raises(UsageError):
        check(route)


def test_there_is_an_end_to_agents(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_write", lambda _: None)
    table = Table(file)
    for number in range(MAX_AGENTS):
        table.put(Route(f"a{number}", f"run_{number}", {"web": 1}))

    with pytest.raises(UsageError):
        table.put(Route("one-more", ONE, {"web": 1}))


def test_what_is_written_is_what_is_documented(file: Path) -> None:
    Table(file).put(Route("calm-otter", ONE, {"web": 3000}))

    assert json.loads(file.read_text()) == {
        "version": 1,
        "routes": {"calm-otter": {"run_id": ONE, "endpoints": {"web": 3000}, "published": {}}},
    }


def test_a_folder_that_others_may_write_costs_only_the_memory_of_it(file: Path) -> None:
    table = Table(file)
    file.parent.mkdir(mode=0o700)
    file.parent.chmod(0o770)

    table.put(Route("calm-otter", ONE, {"web": 3000}))

    assert table.get("calm-otter") is not None
    assert not file.exists()


def test_who_only_looks_sees_what_was_written_and_changes_nothing(file: Path) -> None:
    assert read_routes(file) == []
    table = Table(file)
    table.put(Route("keen-lark", OTHER, {"api": 4000}))
    table.put(Route("calm-otter", ONE, {"web": 3000}))
    assert read_routes(file) == list(table)

    file.write_text("{broken")
    assert read_routes(file) == []
    assert file.read_text() == "{broken"
