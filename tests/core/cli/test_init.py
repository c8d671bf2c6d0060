from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from moat.cli import main as program
from moat.config.template import TEMPLATE


def test_it_writes_a_file_to_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert program.run(["init"]) == 0

    assert (tmp_path / "moat.yaml").read_text() == TEMPLATE


@pytest.mark.parametrize("what", ["a file", "a link"])
def test_what_is_there_is_left_as_it_is(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    path, elsewhere = tmp_path / "moat.yaml", tmp_path / "elsewhere"
    if what == "a file":
        path.write_text("name: mine\n")
    else:
        path.symlink_to(elsewhere)

    assert program.run(["init", str(tmp_path)]) == 2

    assert "is there already" in capfd.readouterr().err
    assert not elsewhere.exists()
    assert path.is_symlink() or path.read_text() == "name: mine\n"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.run(["init", str(tmp_path / "absent")]) == 2

    assert "cannot be written" in capfd.readouterr().err


def test_the_schema_is_printed_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert program.run(["init", "--schema"]) == 0

    assert json.loads(capfd.readouterr().out)["title"] == "moat.yaml"
    assert list(tmp_path.iterdir()) == []


def test_its_help_needs_no_pydantic() -> None:
    script = (
        "import sys; from moat.cli.main import run\n"
        "run(['init', '--help']); assert not {'pydantic', 'yaml'} & set(sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
