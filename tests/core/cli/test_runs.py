from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.runs import RunInfo
from moat.cli.main import run
from moat.cli.runs import TITLES, as_rows
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
