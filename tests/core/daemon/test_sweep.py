from __future__ import annotations

import pytest
from moat.daemon.sweep import sweep
from moat.paths import Home, private_folder
from moat.trace.store import RunStore

from core.daemon.making import OTHER_ID, RUN_ID, an_info


def test_runs_of_a_dead_daemon_are_lost_and_others_stay_as_they_were(home: Home) -> None:
    store = RunStore(home)
    store.write(an_info(state="running"))
    store.write(an_info(OTHER_ID, state="stopped", exit_code=0))

    lost = sweep(home, store)

    assert [info.run_id for info in lost] == [RUN_ID]
    assert (store.read(RUN_ID).state, store.read(OTHER_ID).state) == ("lost", "stopped")
    assert store.read(RUN_ID).ended_at
    assert sweep(home, store) == []


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
