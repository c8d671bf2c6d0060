from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from moat.api.errors import DaemonUnreached, RunNotFound
from moat.api.runs import ExchangeRecord, RunInfo
from moat.cli import trace as module
from moat.cli.main import run
from moat.cli.trace import chosen_run
from moat.daemon.client import DaemonClient
from moat.paths import Home
from moat.proxy.record import line_of
from moat.testing.screen import Screen
from moat.trace.network import NetworkLog
from moat.trace.store import RunStore

OLD = RunInfo("run_0123456789ab", "calm-otter", "docker", "strict", (), "/", ("true",), "2026-01-01", "stopped")
NEW = replace(OLD, run_id="run_1123456789ab", name="brisk-pine", started_at="2026-02-01")
FORWARDED = ExchangeRecord(
    run_id=NEW.run_id, at="2026-02-01T10:11:12.345+00:00", via="connect", method="GET", scheme="https",
    host="api.example.com", port=443, path="/user", status=200, outcome="forwarded", grants=("github",),
    duration_ms=12.6,
)  # fmt: skip
DENIED = replace(
    FORWARDED, host="2001:db8::1", port=8443, outcome="denied", status=403, grants=(), reason="strict policy",
    allow_line="--allow-host [2001:db8::1]:8443",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))
    home = Home(tmp_path / "moat")
    for info in (OLD, NEW):
        RunStore(home).write(info)
    add(home, FORWARDED, DENIED)
    return home


def test_without_a_name_it_is_the_newest_run(home: Home) -> None:
    assert chosen_run(home, "").name == "brisk-pine"


@pytest.mark.parametrize("reference", ["calm-otter", "run_0123456789ab", "run_01"])
def test_a_run_is_meant_by_name_id_or_beginning_of_it(home: Home, reference: str) -> None:
    assert chosen_run(home, reference).name == "calm-otter"


def test_no_runs_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="no runs"):
        chosen_run(Home(tmp_path), "")


@pytest.mark.parametrize("flags", [[], ["--network"]])
def test_the_table_is_shown(home: Home, capfd: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert run(["trace", *flags]) == 0

    out = capfd.readouterr().out
    assert "brisk-pine" in out.splitlines()[0]
    assert "https://api.example.com/user" in out


def test_a_run_without_requests_says_so(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    run(["trace", "calm-otter"])

    assert "no requests" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"), [([], "no requests"), (["--denied"], "no such requests"), (["--host", "x"], "no such requests")]
)
def test_that_none_fits_is_told_apart_from_none_at_all(
    home: Home, capfd: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    run(["trace", "calm-otter", *flags])

    assert capfd.readouterr().out.splitlines()[-1] == told


def test_json_is_the_records(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    run(["trace", "--network", "--json"])

    first, second = json.loads(capfd.readouterr().out)
    assert (first["host"], second["outcome"]) == ("api.example.com", "denied")


def test_an_unknown_run_is_an_error(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "nobody"]) == 1

    assert "moat list" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--denied"], ["2001:db8::1"]),
        (["--host", "api.*"], ["api.example.com"]),
        (["--status", "2xx"], ["api.example.com"]),
        (["--status", "404", "--status", "403"], ["2001:db8::1"]),
        (["--slow"], []),
    ],
)
def test_the_trace_is_narrowed(
    home: Home, capfd: pytest.CaptureFixture[str], flags: list[str], expected: list[str]
) -> None:
    assert run(["trace", "--json", *flags]) == 0

    assert [each["host"] for each in json.loads(capfd.readouterr().out)] == expected


def test_the_slow_ones_come_slowest_first(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    add(home, *(replace(FORWARDED, duration_ms=milliseconds) for milliseconds in (1_500.0, 9_000.0, 1_000.0)))

    run(["trace", "--slow", "--json"])

    assert [each["duration_ms"] for each in json.loads(capfd.readouterr().out)] == [9_000.0, 1_500.0, 1_000.0]


def test_totals_are_shown_per_host_and_model(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    add(home, replace(FORWARDED, model="big-1", input_tokens=1_000, output_tokens=10, cost_usd=0.5))

    assert run(["trace", "--summary"]) == 0
    out = capfd.readouterr().out
    run(["trace", "--summary", "--json"])
    totals = json.loads(capfd.readouterr().out)

    assert [line.split()[0] for line in out.splitlines() if line] == [
        "brisk-pine", "HOST", "api.example.com", "2001:db8::1", "total", "MODEL", "big-1",
    ]  # fmt: skip
    assert (totals["total"]["requests"], totals["total"]["denied"]) == (3, 1)
    assert totals["models"][0]["cost_usd"] == 0.5


def test_an_archive_is_written(home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.har"

    assert run(["trace", "--har", str(file)]) == 0

    assert "developer tools" in capfd.readouterr().err
    assert len(json.loads(file.read_text())["log"]["entries"]) == 2
    assert run(["trace", "--har", str(tmp_path / "no" / "run.har")]) == 1
    assert "cannot be written" in capfd.readouterr().err


def test_an_archive_may_go_to_another_program(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    run(["trace", "--har", "-"])

    assert json.loads(capfd.readouterr().out)["log"]["version"] == "1.2"


def test_what_is_missing_is_told(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    with RunStore(home).network(NEW.run_id).open("a") as stream:
        stream.write('{"version": 1, "marker": "lost", "exchanges": 7}\n')

    run(["trace"])

    assert "7 exchanges are missing" in capfd.readouterr().err


@pytest.mark.parametrize(
    "flags", [["-f", "--summary"], ["--status", "six"], ["--host", "http://x"], ["-f", "--har", "x"]]
)
def test_what_cannot_be_done_is_an_error(home: Home, capfd: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert run(["trace", *flags]) == 2

    assert "error:" in capfd.readouterr().err


def test_a_run_that_is_over_is_followed_to_its_end(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "-f", "--denied", "--json"]) == 0

    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["outcome"] == "denied"


def test_a_live_run_is_followed_as_long_as_it_lives(
    home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def runs(client: DaemonClient) -> list[RunInfo]:  # whenever it is asked, something has come
        asked.append(1)
        add(home, replace(FORWARDED, path=f"/{len(asked)}"))
        if len(asked) in (2, 3):
            raise DaemonUnreached("nobody answers")
        return [NEW] if len(asked) < 4 else []

    RunStore(home).write(replace(NEW, state="running"))
    monkeypatch.setattr(module, "POLL_S", 0.0)
    monkeypatch.setattr(module, "live_ids", lambda _: {NEW.run_id})
    monkeypatch.setattr(DaemonClient, "runs", runs)

    assert run(["trace", NEW.run_id, "-f"]) == 0

    out = capfd.readouterr().out
    assert [f"api.example.com/{number} " in out for number in (1, 2, 3, 4)] == [True] * 4
    assert len(out.splitlines()) == 6


@pytest.mark.parametrize("state", ["stopped", "running"])
def test_who_follows_waits_for_no_daemon_that_never_was(
    home: Home, capfd: pytest.CaptureFixture[str], state: Literal["stopped", "running"]
) -> None:
    RunStore(home).write(replace(NEW, state=state))

    assert run(["trace", "-f", "--json"]) == 0

    assert len(capfd.readouterr().out.splitlines()) == 2


def test_who_follows_is_told_where_exchanges_are_missing(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    with RunStore(home).network(NEW.run_id).open("a") as stream:
        stream.write('{"version": 1, "marker": "lost", "exchanges": 7}\n')

    run(["trace", "-f"])

    assert "7 exchanges are missing here" in capfd.readouterr().err


def test_a_terminal_gets_colours_and_a_waterfall(home: Home) -> None:
    program = "import sys; from moat.cli.main import run; sys.exit(run(['trace']))"
    env = {"MOAT_HOME": str(home.root), "COLUMNS": "120", "PATH": os.environ["PATH"], "PYTHONUTF8": "1"}
    screen = Screen([sys.executable, "-c", program], env)
    try:
        text = screen.read_until("strict policy")
    finally:
        screen.close()

    assert "\x1b[31m" in text
    assert "▏" in text


def add(home: Home, *records: ExchangeRecord) -> None:
    log = NetworkLog()
    for record in records:
        log.append(RunStore(home).network(NEW.run_id), f"{line_of(record)}\n".encode())
    log.flush()
