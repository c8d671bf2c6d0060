from __future__ import annotations

import os
import subprocess

import pytest
from moat.api.runs import RunInfo
from moat.daemon.registry import Entry
from moat.daemon.sweep import still_live, sweep
from moat.paths import Home, private_folder
from moat.trace.store import RunStore

from core.daemon.making import OTHER_ID, RUN_ID, a_context, an_info


def test_runs_of_a_dead_daemon_are_lost_and_others_stay_as_they_were(home: Home) -> None:
    store = RunStore(home)
    store.write(an_info(state="running"))
    store.write(an_info(OTHER_ID, state="stopped", exit_code=0))

    lost = sweep(home, store)

    assert [info.run_id for info in lost] == [RUN_ID]
    assert (store.read(RUN_ID).state, store.read(OTHER_ID).state) == ("lost", "stopped")
    assert store.read(RUN_ID).ended_at
    assert sweep(home, store) == []


@pytest.mark.parametrize("left", ["inside", "control"])
def test_a_run_that_ended_while_nobody_was_left_to_clear_up_is_cleared_after(home: Home, left: str) -> None:
    store = RunStore(home)
    store.write(an_info(state="stopped", exit_code=3))
    store.write(an_info(OTHER_ID, state="stopped", exit_code=0))
    if left == "inside":
        private_folder(home.inside(RUN_ID))
    else:
        home.control(RUN_ID).touch()

    uncleared = sweep(home, store)

    assert [(info.run_id, info.state, info.exit_code) for info in uncleared] == [(RUN_ID, "stopped", 3)]
    assert sweep(home, store, {RUN_ID}) == []


def test_stale_doors_are_removed(home: Home) -> None:
    (private_folder(home.door(RUN_ID)) / "door.sock").touch()

    sweep(home, RunStore(home))

    assert not home.door(RUN_ID).exists()


def test_a_broken_record_does_not_stop_the_start(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore(home)
    store.write(an_info(state="running"))
    private_folder(home.run(OTHER_ID))
    (home.run(OTHER_ID) / "run.json").write_text("{")

    assert len(sweep(home, store)) == 1
    assert (home.run(OTHER_ID) / "run.json.broken").read_text() == "{"
    assert "set aside" in caplog.text


def test_runs_that_go_on_keep_their_records_and_the_very_folder_of_their_door(home: Home) -> None:
    store = RunStore(home)
    store.write(an_info(state="running"))
    folder = private_folder(home.door(RUN_ID))
    number = folder.stat().st_ino
    private_folder(home.door(OTHER_ID))

    assert sweep(home, store, {RUN_ID}) == []

    assert store.read(RUN_ID).state == "running"
    assert folder.stat().st_ino == number
    assert not home.door(OTHER_ID).exists()


def test_a_run_is_live_as_its_record_says_which_is_newer_than_the_list(home: Home) -> None:
    store = RunStore(home)
    store.write(an_info(state="running", container_id="c"))
    store.write(an_info(OTHER_ID, state="stopped"))
    unknown = "run_aaaaaaaaaaaa"
    entries = [Entry(a_context(run_id), an_info(run_id, state="starting")) for run_id in (RUN_ID, OTHER_ID, unknown)]

    live = still_live(store, entries)

    assert [(entry.run_id, entry.info.state) for entry in live] == [(RUN_ID, "running"), (unknown, "starting")]
    assert live[0].info.container_id == "c"


def test_of_two_counters_the_higher_is_taken(home: Home) -> None:
    store = RunStore(home)
    store.write(an_info(state="running", requests=3, denied=2))

    (live,) = still_live(store, [Entry(a_context(), an_info(requests=7, denied=1))])

    assert (live.info.requests, live.info.denied) == (7, 2)


def test_a_run_whose_end_cannot_be_written_down_does_not_stop_the_start(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunStore(home)
    store.write(an_info(state="running"))

    def full(info: RunInfo) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(store, "write", full)

    assert [info.run_id for info in sweep(home, store)] == [RUN_ID]
    assert "could not be written" in caplog.text


def test_drafts_of_processes_that_were_killed_are_removed_and_no_others(home: Home) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    folders = [home.root, home.daemon, home.run(RUN_ID), home.credentials, home.credentials_of("work")]
    for folder in folders:
        for name in (f".x.json.{child.pid}.new", f".x.json.{os.getpid()}.new", ".x.json.new", "x.json"):
            (private_folder(folder) / name).touch()

    sweep(home, RunStore(home))

    for folder in folders:
        left = {each.name for each in folder.iterdir() if each.is_file()}
        assert left == {f".x.json.{os.getpid()}.new", ".x.json.new", "x.json"}
