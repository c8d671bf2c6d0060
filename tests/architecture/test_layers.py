"""The layers hold, and the checker that says so really sees the modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from architecture.tree import ROOT


def test_import_linter_keeps_every_contract() -> None:
    program = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
