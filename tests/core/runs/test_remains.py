from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moat.api.runs import RunInfo
from moat.paths import Home, private_folder
from moat.runs.remains import of_run, old_runs, remove, size_of, strays
from moat.runs.volumes import all_volumes, make_volumes
from moat.trace.store import RunStore

NOW = datetime(2026, 6, 30, tzinfo=UTC)
INFO = RunInfo(
    "run_000000000001", "calm-otter", "fake", "permissive", (), "/srv/work", ("true",), "2026-06-01T00:00:00+00:00",
    "stopped", ended_at="2026-06-10T00:00:00+00:00",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(private_folder(tmp_path / "moat"))


def written(home: Home, number: int, **changes: Any) -> RunInfo:
    info = replace(INFO, run_id=f"run_{number:012x}", **changes)
    RunStore(home).write(info)
    return info


def test_only_runs_that_ended_before_are_old_and_the_oldest_comes_first(home: Home) -> None:
    written(home, 1, ended_at="2026-06-29T00:00:00+00:00", started_at="2026-06-29T00:00:00+00:00")
    second = written(home, 2)
    third = written(home, 3, started_at="2026-05-01T00:00:00+00:00", ended_at="", state="lost")
    written(home, 4, state="running", ended_at="")
    written(home, 5, state="starting", ended_at="")
    held = written(home, 6)

    found = old_runs(home, timedelta(days=7), {held.run_id}, NOW)

    assert [each.path.name for each in found] == [third.run_id, second.run_id]
    assert all(each.size > 0 for each in found)


def test_a_date_that_nobody_can_read_is_long_ago(home: Home) -> None:
    written(home, 1, ended_at="yesterday")

    assert len(old_runs(home, timedelta(days=7), (), NOW)) == 1


def test_folders_of_runs_that_are_over_or_unknown_are_strays_and_no_others(home: Home) -> None:
    over, running, held = written(home, 1), written(home, 2, state="running"), written(home, 3)
    for run_id in (over.run_id, running.run_id, held.run_id, "run_00000000000f", "keep-me"):
        (home.root / "doors" / run_id).mkdir(parents=True)
    (home.root / "inside" / over.run_id).mkdir(parents=True)

    found = strays(home, {held.run_id})

    assert [each.path.relative_to(home.root).parts for each in found] == [
        ("doors", over.run_id), ("doors", "run_00000000000f"), ("inside", over.run_id),
    ]  # fmt: skip


def test_a_live_run_has_no_remains(home: Home) -> None:
    info = written(home, 1, state="running")

    assert of_run(home, info, ()) is None
    assert of_run(home, replace(info, state="stopped"), {info.run_id}) is None


def test_what_is_removed_is_gone_even_after_a_removal_that_was_cut_short(home: Home) -> None:
    info = written(home, 1)
    half = home.runs / f".{info.run_id}.removed"
    (half / "deep").mkdir(parents=True)
    remains = of_run(home, info, ())
    assert remains is not None

    remove(remains)

    assert list(home.runs.iterdir()) == []


def test_links_are_neither_followed_nor_counted_as_what_they_lead_to(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x" * 100_000)
    info = written(home, 1)
    (home.run(info.run_id) / "link").symlink_to(precious)
    remains = of_run(home, info, ())
    assert remains is not None
    assert size_of(remains.path) < 10_000

    remove(remains)

    assert (precious / "file").exists()


def test_what_a_run_over_worked_on_is_a_stray_and_that_of_a_live_one_is_none(home: Home) -> None:
    over, held = written(home, 1), written(home, 2, state="running", ended_at="")
    for name in (over.run_id, f"{over.run_id}.git", f"{over.run_id}.own", f"{held.run_id}.own", "else.own"):
        private_folder(home.copies / name)

    found = strays(home, {held.run_id})

    assert [each.path.name for each in found] == [over.run_id, f"{over.run_id}.git", f"{over.run_id}.own"]


def test_volumes_of_a_workspace_that_is_gone_are_strays(home: Home, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "gone"):
        make_volumes(home, tmp_path / name, ["b", "a"])

    (found,) = strays(home, ())

    assert found.what.endswith("gone, which is gone: a, b")
    remove(found)
    assert [each.workspace.name for each in all_volumes(home)] == ["there", "there"]
