"""What CI runs once more (`scripts/again.py`), and what it never does. The run before it is real, with our conftest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from architecture.tree import ROOT

LIVE = "tests/e2e/test_it.py"
PASSES_THEN = """
import pathlib, pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    tried = pathlib.Path(__file__).with_suffix(f".{{number}}")
    was_tried = tried.exists()
    tried.touch()
    assert was_tried
"""
ONCE = PASSES_THEN.format(count=1)
FAILS = "def test_it():\n    assert False\n"
SKIPS = "import pytest\n\ndef test_it():\n    pytest.skip('for no reason')\n"
LEAKS = """
def test_it(tmp_path):
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "daemon.log").write_text("token-s3cr3t")
"""


def again(folder: Path, files: Mapping[str, str]) -> tuple[int, str]:
    """Run tests, then the script, as `.ci/run` does; return the script's exit code and what it printed."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nnorecursedirs = temporary\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    words = ["-p", "conftest", "--import-mode=importlib", "--fail-on-skips", "--basetemp", "temporary"]
    first = run([sys.executable, "-m", "pytest", *words, "-n", "1", "tests"], folder, env)
    assert first.returncode == 1, first.stdout
    shutil.rmtree(folder / "temporary", ignore_errors=True)  # what leaks there is not this session's
    done = run([sys.executable, str(ROOT / "scripts" / "again.py"), *words], folder, env)
    return done.returncode, done.stdout


def run(words: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=60)


def test_a_live_test_that_passes_when_run_again_is_named(tmp_path: Path) -> None:
    code, said = again(tmp_path, {LIVE: ONCE})
    assert code == 0, said
    assert "UNSTEADY" in said
    assert said.rstrip().endswith(f"{LIVE}::test_it[0]")


def test_a_test_that_fails_again_has_failed(tmp_path: Path) -> None:
    code, said = again(tmp_path, {LIVE: FAILS})
    assert code == 1
    assert "1 failed" in said
    assert "UNSTEADY" not in said


@pytest.mark.parametrize(
    "files",
    [
        {"tests/hostile/test_it.py": ONCE},
        {"tests/core/test_it.py": ONCE},
        {LIVE: "import nothing_of_this_name\n"},
        {LIVE: PASSES_THEN.format(count=4)},
        {"tests/e2e/test_other.py": SKIPS},
        {"tests/e2e/test_other.py": LEAKS},
    ],
    ids=[
        "a claim about security",
        "no live run",
        "not collected",
        "too many",
        "a skip without leave",
        "a secret found",
    ],
)
def test_nothing_else_is_run_again(files: dict[str, str], tmp_path: Path) -> None:
    assert again(tmp_path, {LIVE: ONCE} | files) == (1, "")


def test_without_a_run_that_came_to_its_end_nothing_is(tmp_path: Path) -> None:
    assert run([sys.executable, str(ROOT / "scripts" / "again.py")], tmp_path, os.environ).returncode == 1
