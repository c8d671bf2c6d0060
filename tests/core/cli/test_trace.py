from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.errors import RunNotFound
from moat.api.runs import ExchangeRecord, RunInfo
from moat.cli.main import run
from moat.cli.trace import TITLES, as_rows, chosen_run
from moat.paths import Home
from moat.proxy.record import line_of
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
    store, log = RunStore(home), NetworkLog()
    for info in (OLD, NEW):
        store.write(info)
    for record in (FORWARDED, DENIED):
        log.append(store.network(NEW.run_id), f"{line_of(record)}\n".encode())
    log.flush()
    return home


def test_an_exchange_is_one_readable_row() -> None:
    row = dict(zip(TITLES, as_rows([FORWARDED])[0], strict=True))

    assert row == {
        "AT": "10:11:12", "OUTCOME": "forwarded", "STATUS": "200", "METHOD": "GET",
        "URL": "https://api.example.com/user", "GRANTS": "github", "MS": "13", "WHY": "",
    }  # fmt: skip


def test_a_denial_says_why_and_what_to_add() -> None:
    row = dict(zip(TITLES, as_rows([DENIED])[0], strict=True))

    assert row["URL"] == "https://[2001:db8::1]:8443/user"
    assert row["WHY"] == "strict policy; --allow-host [2001:db8::1]:8443"
    assert row["GRANTS"] == "-"


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


def test_json_is_the_records(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    run(["trace", "--network", "--json"])

    first, second = json.loads(capfd.readouterr().out)
    assert (first["host"], second["outcome"]) == ("api.example.com", "denied")


def test_an_unknown_run_is_an_error(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "nobody"]) == 1

    assert "moat list" in capfd.readouterr().err
