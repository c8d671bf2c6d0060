"""What a run that worked on a copy changed: `runs/<id>/result.patch`, left by `runs/copies.py`. Cheap to import."""

from __future__ import annotations

import re

from moat.paths import Home

FILE_NAME = "result.patch"
_FILE = re.compile(rb"^diff --git ", re.MULTILINE)


def result_of(home: Home, run_id: str) -> bytes | None:
    """Return what a run changed in its copy, as a patch; None where it had none, or is not over."""
    try:
        return (home.run(run_id) / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None


def files_in(patch: bytes) -> int:
    """Return how many files a patch changes."""
    return len(_FILE.findall(patch))
