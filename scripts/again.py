"""Runs the tests that just failed once more, alone, and says loudly which of them pass now. For `.ci/run`.

Tests with live runs share a machine with the rest of the suite, and one that races with its load should be found and
mended, not stop a landing: its name is printed for that. A claim about security that fails once has failed, and so has
a test without a live run: of those, nothing is run again. Nor are more than a few: then something is broken. Nor is
anything where the run has complaints of its own, a secret that was found or a test that was skipped without leave.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CACHE = Path(".pytest_cache/v")
FAILED = CACHE / "cache/lastfailed"  # of pytest's own cache provider: {node id: true}
END = CACHE / "moat/end"  # of tests/conftest.py: {"status": pytest's exit code, "complaints": [text, …]}
LIVE = ("tests/contract/", "tests/e2e/", "tests/faults/", "tests/integration/")
MOST = 3


def may_run_again(failed: list[str]) -> bool:
    """Say whether these node ids are few tests with live runs. A file that was not collected has no `::`."""
    return 0 < len(failed) <= MOST and all(each.startswith(LIVE) and "::" in each for each in failed)


def ended_by_tests_alone() -> bool:
    """Say whether the run came to its end, and nothing but tests has failed."""
    return END.exists() and json.loads(END.read_text()) == {"status": 1, "complaints": []}


def say(text: str, names: list[str]) -> None:
    sys.stdout.write("\n  ".join([f"again.py: {text}", *names]) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 when all that failed passes now. arguments: pytest's."""
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not may_run_again(failed) or not ended_by_tests_alone():
        return 1
    say(f"{len(failed)} failed; once more, alone:", failed)
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments, *failed], check=False).returncode
    if code == 0:
        say("UNSTEADY, to be mended (these passed only when run again):", failed)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
