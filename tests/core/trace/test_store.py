from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import RunNotFound, UsageError
from moat.api.runs import RunInfo
from moat.paths import Home
from moat.trace.store import RunStore, choose

FIRST, SECOND, THIRD = "run_aaaaaaaaaaaa", "run_aaaabbbbbbbb", "run_cccccccccccc"


def a_run(run_id: str = FIRST, **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "run_id": run_id, "name": "calm-otter", "runtime": "bubblewrap", "policy": "strict", "grants": ("github",),
        "workspace": "/w", "command": ("make", "test"), "started_at": "2026-01-01T00:00:00+00:00", "state": "stopped",
    }  # fmt: skip
    return RunInfo(**(values | changes))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_what_is_written_is_read_back(home: Home) -> None:
    RunStore(home).write(a_run(exit_code=3, requests=7))

    assert RunStore(home).read(FIRST) == a_run(exit_code=3, requests=7)


def test_a_record_is_private_and_replaced_in_one_step(home: Home) -> None:
    store = RunStore(home)
    store.write(a_run(state="running"))
    store.write(a_run())

    assert (home.run(FIRST) / "run.json").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in home.run(FIRST).iterdir()] == ["run.json"]


def test_an_unknown_run_is_not_found(home: Home) -> None:
    with pytest.raises(RunNotFound, match=FIRST):
        RunStore(home).read(FIRST)


@pytest.mark.parametrize("reference", ["../../etc", "run_../../x", "run_zzz", ""])
def test_a_path_is_no_run_id(home: Home, reference: str) -> None:
    with pytest.raises(UsageError):
        RunStore(home).read(reference)


def test_runs_are_listed_newest_first_and_foreign_folders_left_out(home: Home) -> None:
    store = RunStore(home)
    store.write(a_run(FIRST, started_at="2026-01-01T00:00:00+00:00"))
    store.write(a_run(THIRD, started_at="2026-01-02T00:00:00+00:00"))
    (home.runs / "lost+found").mkdir()

    assert [info.run_id for info in store.list()] == [THIRD, FIRST]


def test_no_runs_at_all_is_an_empty_list(home: Home) -> None:
    assert RunStore(home).list() == []


def test_a_run_that_no_live_daemon_knows_is_shown_as_lost(home: Home) -> None:
    store = RunStore(home)
    store.write(a_run(FIRST, state="running"))
    store.write(a_run(SECOND, state="starting"))
    store.write(a_run(THIRD))

    states = {info.run_id: info.state for info in store.list(live={FIRST})}

    assert states == {FIRST: "running", SECOND: "lost", THIRD: "stopped"}
    assert store.read(SECOND).state == "starting"
    assert store.find(SECOND, live=()).state == "lost"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "run_aaaaaaaaaaaa"}', '{"run_id": 7}'])
def test_a_broken_record_is_left_out_and_set_aside(home: Home, text: str, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore(home)
    store.write(a_run(THIRD))
    home.run(FIRST).mkdir()
    (home.run(FIRST) / "run.json").write_text(text)

    assert [info.run_id for info in store.list()] == [THIRD]

    aside = store.set_aside_broken()
    assert [path.read_text() for path in aside] == [text]
    assert "set aside" in caplog.text
    assert store.set_aside_broken() == ()


def test_a_folder_in_a_record_s_place_is_set_aside(home: Home) -> None:
    (home.run(FIRST) / "run.json").mkdir(parents=True)

    (aside,) = RunStore(home).set_aside_broken()

    assert aside.is_dir()
    assert RunStore(home).list() == []


def test_a_record_that_names_another_run_is_broken(home: Home) -> None:
    store = RunStore(home)
    store.write(a_run(THIRD))
    home.run(FIRST).mkdir()
    (home.run(THIRD) / "run.json").rename(home.run(FIRST) / "run.json")

    with pytest.raises(RunNotFound, match="another run"):
        store.read(FIRST)


def test_names_are_kept_and_broken_ones_given_anew(home: Home) -> None:
    store = RunStore(home)
    assert store.read_names(FIRST) == {}

    store.write_names(FIRST, {"api.example.com": "127.107.0.1"})
    assert store.read_names(FIRST) == {"api.example.com": "127.107.0.1"}

    (home.run(FIRST) / "names.json").write_text("{")
    assert store.read_names(FIRST) == {}


def test_a_run_is_found_by_id_unique_prefix_and_name(home: Home) -> None:
    store = RunStore(home)
    store.write(a_run(FIRST, name="one"))
    store.write(a_run(THIRD, name="three"))

    assert [store.find(each).run_id for each in (FIRST, "run_c", "three")] == [FIRST, THIRD, THIRD]


def test_a_prefix_of_several_ids_is_an_error_that_lists_them() -> None:
    with pytest.raises(RunNotFound, match=f"{FIRST}.*{SECOND}|{SECOND}.*{FIRST}"):
        choose("run_aaaa", [a_run(FIRST), a_run(SECOND), a_run(THIRD)])


def test_of_finished_runs_with_one_name_the_newest_is_meant() -> None:
    runs = [a_run(FIRST, started_at="2026-01-01"), a_run(SECOND, started_at="2026-01-03"), a_run(THIRD)]

    assert choose("calm-otter", runs).run_id == SECOND


def test_a_live_run_goes_before_newer_finished_ones_of_its_name() -> None:
    runs = [a_run(FIRST, state="running", started_at="2026-01-01"), a_run(SECOND, started_at="2026-01-03")]

    assert choose("calm-otter", runs).run_id == FIRST


def test_two_live_runs_with_one_name_are_an_error_that_lists_them() -> None:
    with pytest.raises(RunNotFound, match=r"several runs.*running"):
        choose("calm-otter", [a_run(FIRST, state="running"), a_run(SECOND, state="starting")])


def test_a_name_that_nobody_has_is_not_found() -> None:
    with pytest.raises(RunNotFound, match="nobody"):
        choose("nobody", [a_run()])


def test_the_newest_is_the_one_that_began_last_and_there_may_be_none(tmp_path: Path) -> None:
    store = RunStore(Home(tmp_path))
    with pytest.raises(RunNotFound, match="no runs yet"):
        store.newest()
    for number, began in enumerate(("2026-01-01", "2026-03-01", "2026-02-01")):
        run_id = f"run_00000000000{number}"
        store.write(RunInfo(run_id, f"r{number}", "fake", "permissive", (), "/w", ("true",), began, "stopped"))

    assert store.newest().name == "r1"
