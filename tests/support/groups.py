"""Which tests may run beside which, where pytest-xdist has several workers (`make test`).

Tests with live runs mostly wait, so two lines of them go side by side, in the order in which they are written; whatever
else there is runs beside them, a file at a time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LINES = {
    "sieges": ("faults", "hostile"),
    "runs": ("contract", "e2e", "integration"),
}
ANYWHERE = ("hostile/fuzz",)  # properties: no sandbox, and much to compute


def side_by_side(items: list[pytest.Item], tests: Path) -> None:
    """Put each test into its group, and the lines first: they take longest."""
    groups = {}
    for item in items:
        groups[item] = group_of(item.path.relative_to(tests).as_posix())
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: groups[item] not in LINES)


def group_of(path: str) -> str:
    """Return the name of a line, or the file's own path. path: below tests/."""
    if not path.startswith(ANYWHERE):
        for line, folders in LINES.items():
            if path.split("/")[0] in folders:
                return line
    return path
