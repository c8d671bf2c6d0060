from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.cli import doctor
from moat.cli.main import run
from moat.runs.checks import Check

FINE = [Check("daemon", "ok", "process 7"), Check("door in bubblewrap", "ok", "sealed ✓")]
POOR = [
    Check("daemon", "ok", "process 7"),
    Check("bubblewrap", "warning", "bubblewrap is not installed", "run: apt-get install bubblewrap"),
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))


def found(monkeypatch: pytest.MonkeyPatch, checks: list[Check]) -> None:
    def check_up(*_: object) -> Iterator[Check]:
        yield from checks

    monkeypatch.setattr(doctor, "check_up", check_up)


def test_a_machine_that_can_run_is_told_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    found(monkeypatch, FINE)

    assert run(["doctor"]) == 0

    out = capfd.readouterr().out
    assert "✓ door in bubblewrap" in out
    assert "sealed runs work here" in out


def test_a_machine_that_cannot_is_told_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, POOR)

    assert run(["doctor"]) == 1

    out = capfd.readouterr().out
    assert "! bubblewrap" in out
    assert "run: apt-get install bubblewrap" in out


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    found(monkeypatch, POOR)

    assert run(["doctor", "--json"]) == 1

    told = json.loads(capfd.readouterr().out)
    assert told["can_run"] is False
    assert [check["name"] for check in told["checks"]] == ["daemon", "bubblewrap"]


def test_settings_that_cannot_be_read_are_a_finding_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "moat").mkdir()
    (tmp_path / "moat" / "config.yaml").write_text("imag: x\n")
    found(monkeypatch, FINE)

    assert run(["doctor"]) == 0

    assert "✗ settings" in capfd.readouterr().out
