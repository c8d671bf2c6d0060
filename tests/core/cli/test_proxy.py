from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from moat.api.errors import DaemonError
from moat.cli import proxy as module
from moat.cli.proxy import proxy
from moat.daemon import lifecycle
from moat.daemon.client import DaemonClient
from moat.daemon.process import is_kept
from moat.daemon.protocol import GrantState, Health
from moat.paths import Home
from moat.proxy.server.house import DRAIN_S

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


@pytest.mark.parametrize(
    ("runs", "words"), [(1, "1 live run ends with the daemon; waiting for exchanges under way, 3 s at most\n"),
                        (2, "2 live runs end with the daemon; waiting for exchanges under way, 3 s at most\n"),
                        (0, "")],
)  # fmt: skip
def test_stop_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch, runs: int, words: str) -> None:
    monkeypatch.setattr(DaemonClient, "health", lambda client, timeout_s: replace(HEALTH, run_count=runs))
    monkeypatch.setattr(lifecycle, "stop", lambda home: True)

    assert CliRunner().invoke(proxy, ["stop"]).stderr == f"{words}the daemon is stopped\n"
    assert f"{DRAIN_S:g} s at most" in words or not runs
    assert "three seconds" in CliRunner().invoke(proxy, ["stop", "--help"]).stdout


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


def test_restart_says_where_the_new_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "restart", lambda home: Client())

    result = CliRunner().invoke(proxy, ["restart"])

    assert (result.exit_code, result.stderr) == (0, "the daemon runs (process 7, proxy port 19080)\n")


def test_restart_warns_of_runs_whose_credentials_are_in_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaemonClient, "health", lambda client, timeout_s: replace(HEALTH, bound_run_count=2))
    monkeypatch.setattr(lifecycle, "restart", lambda home: Client())

    result = CliRunner().invoke(proxy, ["restart"])

    assert "2 live runs have credentials in the daemon's memory only" in result.stderr.splitlines()[0]
    assert result.exit_code == 0


def test_a_daemon_can_be_told_to_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lifecycle, "ensure_running", lambda home: Client())

    assert CliRunner().invoke(proxy, ["start", "--keep"]).exit_code == 0

    assert is_kept(Home(tmp_path))


def test_in_the_foreground_it_becomes_the_daemon_without_the_caller_s_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setenv("GITHUB_TOKEN", "s3cr3t")
    monkeypatch.setattr("os.execve", lambda *words: became.append(words))
    monkeypatch.setattr(lifecycle, "ensure_running", lambda home: Client())

    CliRunner().invoke(proxy, ["start", "--foreground"])

    ((_, command, env),) = became
    assert command[-3:] == ["--home", str(tmp_path), "--foreground"]
    assert "s3cr3t" not in str(env)


def test_where_one_runs_already_no_second_one_comes_to_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "living", lambda home: 7)

    assert isinstance(CliRunner().invoke(proxy, ["start", "--foreground"]).exception, DaemonError)


def test_status_tells_what_is_routed_and_how_grants_are(monkeypatch: pytest.MonkeyPatch) -> None:
    states = (GrantState("", "github", "static"), GrantState("work", "fake", "revoked", problem="it says no"))
    health = replace(HEALTH, routing_port=8080, commit="0123456789abcdef", grants=states)
    monkeypatch.setattr(lifecycle, "status", lambda home: health)

    out = CliRunner().invoke(proxy, ["status"]).stdout

    assert "version 0.1.0, 0123456789ab" in out
    assert "http://localhost:8080/" in out
    assert "github: not renewed" in out
    assert "fake (work): revoked; it says no; run: moat grant --profile work fake" in out
