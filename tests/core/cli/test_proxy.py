from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from moat.api.errors import DaemonError
from moat.cli.proxy import proxy
from moat.daemon import lifecycle
from moat.daemon.protocol import Health
from moat.paths import Home

HEALTH = Health(7, "0.1.0", 19080, 2, "2026-01-01T00:00:00+00:00", 1.5, 8)


class Client:
    def health(self) -> Health:
        return HEALTH


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path))


def test_start_makes_sure_that_a_daemon_runs_and_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Home] = []

    def ensure(home: Home) -> Client:
        asked.append(home)
        return Client()

    monkeypatch.setattr(lifecycle, "ensure_running", ensure)

    result = CliRunner().invoke(proxy, ["start"])

    assert (result.exit_code, asked) == (0, [Home(tmp_path)])
    assert result.stderr == "the daemon runs (process 7, proxy port 19080)\n"
    assert result.stdout == ""


@pytest.mark.parametrize(("was_running", "words"), [(True, "is stopped"), (False, "was not running")])
def test_stop_says_whether_there_was_one(monkeypatch: pytest.MonkeyPatch, *, was_running: bool, words: str) -> None:
    monkeypatch.setattr(lifecycle, "stop", lambda home: was_running)

    result = CliRunner().invoke(proxy, ["stop"])

    assert result.exit_code == 0
    assert words in result.stderr


def test_status_shows_the_daemon_s_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "status", lambda home: HEALTH)

    shown = CliRunner().invoke(proxy, ["status"]).stdout
    parsed = json.loads(CliRunner().invoke(proxy, ["status", "--json"]).stdout)

    for fact in ("process 7", "19080", "live runs   2"):
        assert fact in shown
    assert (parsed["running"], parsed["pid"], parsed["run_count"]) == (True, 7, 2)


def test_status_without_a_daemon_is_no_error() -> None:
    assert CliRunner().invoke(proxy, ["status"]).stdout == "the daemon is not running\n"
    assert json.loads(CliRunner().invoke(proxy, ["status", "--json"]).stdout) == {"running": False}


def test_a_silent_daemon_is_an_error_that_reaches_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(home: Home) -> None:
        raise DaemonError("the daemon (process 7) is alive but does not answer", hint="run: moat proxy stop")

    monkeypatch.setattr(lifecycle, "status", status)

    assert isinstance(CliRunner().invoke(proxy, ["status"]).exception, DaemonError)
