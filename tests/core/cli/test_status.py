from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from moat.api.runs import RunInfo
from moat.cli import status as module
from moat.cli.status import disk_use, status
from moat.daemon import lifecycle
from moat.daemon.protocol import GrantState, Health
from moat.paths import Home

HEALTH = Health(7, "0.1.0", 19080, 1, "2026-01-01T00:00:00+00:00", 1.5, 8)
RUN = RunInfo("run_0123456789ab", "calm-otter", "bubblewrap", "permissive", ("github", "fake"), "/w", ("x",),
              "2026-01-01T10:11:12.345+00:00", "running", requests=7, denied=2)  # fmt: skip
GRANTS = (
    GrantState("", "github", "static"),
    GrantState("work", "fake", "fresh", "2026-01-02T00:00:00+00:00", next_at="2026-01-01T12:00:00+00:00"),
)


class Client:
    runs_there: tuple[RunInfo, ...] = (RUN,)

    def __init__(self, home: Home) -> None:
        del home

    def runs(self) -> list[RunInfo]:
        return list(self.runs_there)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path))
    monkeypatch.setattr(module, "DaemonClient", Client)
    folder = tmp_path / "runs" / RUN.run_id
    folder.mkdir(parents=True)
    (folder / "network.jsonl").write_text("12345")


def shown(monkeypatch: pytest.MonkeyPatch, health: Health | None, *words: str) -> str:
    monkeypatch.setattr(lifecycle, "status", lambda home: health)
    result = CliRunner().invoke(status, list(words))
    assert result.exit_code == 0
    return result.stdout


def test_what_runs_is_shown_with_its_grants_and_how_long_they_last(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, replace(HEALTH, grants=GRANTS))

    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "calm-otter run_0123456789ab running 2026-01-01 10:11:12 github, fake 7 2 5 B" in lines
    assert "github default never not renewed" in lines
    assert "fake work 2026-01-02 00:00:00 renewed; next 2026-01-01T12:00:00+00:00" in lines


def test_a_revoked_grant_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    revoked = GrantState("work", "fake", "revoked", problem="fake says no")

    out = shown(monkeypatch, replace(HEALTH, grants=(revoked,)))

    assert "revoked; fake says no; run: moat grant --profile work fake" in out


def test_nothing_is_said_to_be_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing runs, and neither does the daemon" in shown(monkeypatch, None)
    monkeypatch.setattr(Client, "runs_there", ())
    assert "nothing runs\n" in shown(monkeypatch, HEALTH)


def test_programs_get_all_of_it_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(shown(monkeypatch, replace(HEALTH, grants=GRANTS), "--json"))

    assert found["daemon"]["grants"][1]["profile"] == "work"
    assert found["runs"][0]["requests"] == 7
    assert found["disk"]["runs_bytes"] == {RUN.run_id: 5}
    nothing = json.loads(shown(monkeypatch, None, "--json"))
    assert (nothing["daemon"], nothing["runs"], nothing["disk"]["used_bytes"] > 5) == (None, [], True)


def test_the_room_that_is_taken_and_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for health in (HEALTH, None):
        last = shown(monkeypatch, health).splitlines()[-1]

        assert f" used in {tmp_path}, " in last
        assert last.endswith(" free")


def test_looking_makes_no_installation(tmp_path: Path) -> None:
    home = Home(tmp_path / "none" / "here")

    assert disk_use(home, []).used_bytes == 0
    assert not home.root.parent.exists()
