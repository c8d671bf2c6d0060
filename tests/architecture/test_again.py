"""What CI runs once more (`scripts/again.py`), and what it never does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from architecture.tree import ROOT

LIVE = "tests/e2e/test_it.py::test_it"


def again(folder: Path, failed: list[str], body: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder whose last run of pytest left these failed. body: what `test_it` does now."""
    file = folder / "tests" / "e2e" / "test_it.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"def test_it():\n    {body}\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    if failed:
        (folder / ".pytest_cache" / "v" / "cache").mkdir(parents=True)
        (folder / ".pytest_cache" / "v" / "cache" / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)))
    program = [sys.executable, str(ROOT / "scripts" / "again.py"), "-p", "no:xdist"]
    return subprocess.run(program, cwd=folder, check=False, capture_output=True, text=True, timeout=60)


def test_a_live_test_that_passes_when_run_again_is_named(tmp_path: Path) -> None:
    done = again(tmp_path, [LIVE], "pass")
    assert done.returncode == 0
    assert "UNSTEADY" in done.stdout
    assert done.stdout.rstrip().endswith(LIVE)


def test_a_test_that_fails_again_has_failed(tmp_path: Path) -> None:
    done = again(tmp_path, [LIVE], "raise ValueError")
    assert done.returncode == 1
    assert "UNSTEADY" not in done.stdout


@pytest.mark.parametrize(
    "failed",
    [
        [],
        [LIVE, "tests/hostile/test_kills.py::test_it"],
        [LIVE, "tests/core/proxy/test_flow.py::test_it"],
        ["tests/e2e/test_it.py"],
        [f"{LIVE}[{number}]" for number in range(4)],
    ],
    ids=["no test failed", "a claim about security", "no live run", "not collected", "too many"],
)
def test_nothing_else_is_run_again(failed: list[str], tmp_path: Path) -> None:
    done = again(tmp_path, failed, "pass")
    assert done.returncode == 1
    assert "passed" not in done.stdout
