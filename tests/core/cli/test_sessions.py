from __future__ import annotations

from pathlib import Path

import pytest
from moat.cli import main
from moat.paths import Home
from moat.plugins.manager import Plugins
from moat.runs.sessions import Sessions

from core.plugins.plugin import a_plugin
from core.runs.test_sessions import Keeper


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))
    plugin = a_plugin("pal", moat_agent_providers=lambda: [Keeper()])
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls([plugin])))
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_what_a_run_wrote_cannot_move_the_cursor_or_fill_the_screen(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = Sessions(Home(tmp_path / "moat"), Keeper(), work)
    sessions.mounts("/home/moat")
    (sessions.folder / ".pal_said" / "abc").write_text("fix\n the \x1b[2Jtest " + "x" * 500)

    assert main.run(["sessions", str(work)]) == 0

    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split() == ["AGENT", "SESSION", "LAST", "(UTC)", "BEGAN", "WITH"]
    assert row.startswith("pal")
    assert "fix the" in row
    assert "\x1b" not in row
    assert len(row) < 120


def test_where_no_agent_has_worked_it_says_so(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["sessions", str(work)]) == 0

    assert f"no agent has worked in {work} yet" in capsys.readouterr().err
