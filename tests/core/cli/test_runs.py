from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.runs import RunInfo
from moat.cli.main import run
from moat.cli.runs import SHOWN_ENDED, TITLES, as_rows, newest
from moat.paths import Home
from moat.trace.store import RunStore

DONE = RunInfo(
    "run_0123456789ab", "calm-otter", "bubblewrap", "strict", ("github",), "/srv/work", ("sh", "-c", "x" * 80),
    "2026-01-01T10:00:00.000+00:00", "stopped", exit_code=3, requests=2, denied=1,
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))
    return Home(tmp_path / "moat")


def test_a_row_has_what_its_titles_say() -> None:
    row = dict(zip(TITLES, as_rows([DONE])[0], strict=True))

    assert row["NAME"] == "calm-otter"
    assert row["STATE"] == "stopped (3)"
    assert row["STARTED"] == "2026-01-01 10:00:00"
    assert row["COMMAND"].startswith("sh -c x")
    assert row["COMMAND"].endswith("…")


def test_no_runs_is_no_empty_table(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0

    assert "moat run" in capfd.readouterr().out


def test_runs_are_listed_without_a_daemon(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    RunStore(home).write(DONE)

    assert run(["list"]) == 0

    assert "calm-otter" in capfd.readouterr().out
    assert not (home.daemon / "daemon.sock").exists()


def test_a_run_that_no_daemon_holds_is_lost(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    RunStore(home).write(RunInfo("run_aaaaaaaaaaaa", "x", "docker", "strict", (), "/", ("true",), "2026", "running"))

    run(["list", "--json"])

    assert json.loads(capfd.readouterr().out)[0]["state"] == "lost"


def test_json_has_every_field(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    RunStore(home).write(DONE)

    run(["list", "--json"])

    (told,) = json.loads(capfd.readouterr().out)
    assert (told["run_id"], told["command"], told["denied"]) == (DONE.run_id, list(DONE.command), 1)


def test_of_runs_that_are_over_only_the_newest_are_shown_unless_asked(
    home: Home, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(SHOWN_ENDED + 3):
        RunStore(home).write(
            replace(DONE, run_id=f"run_{number:012x}", started_at=f"2026-01-01T10:00:{number:02}+00:00")
        )

    run(["list"])
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1 + SHOWN_ENDED
    assert f"run_{SHOWN_ENDED + 2:012x}" in out
    assert "3 more ended before: moat list -a" in err
    run(["list", "-a"])
    assert len(capfd.readouterr().out.splitlines()) == 1 + SHOWN_ENDED + 3
    run(["list", "--json"])
    assert len(json.loads(capfd.readouterr().out)) == SHOWN_ENDED + 3


def test_every_live_run_is_shown_however_old() -> None:
    old = replace(DONE, run_id="run_aaaaaaaaaaaa", state="running")
    ended = [replace(DONE, run_id=f"run_{number:012x}") for number in range(SHOWN_ENDED + 5)]

    assert newest([*ended, old]) == [*ended[:SHOWN_ENDED], old]
