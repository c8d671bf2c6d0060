"""Which tests may run beside which, where pytest-xdist has several workers (`make test`).

Tests with live runs mostly wait, so three lines of them go side by side, each in the order in which it is written, and
whatever else there is runs after the shortest of them, a file at a time.
"""

from __future__ import annotations

from typing import Any

import pytest

LINES = {
    "sieges": ("faults", "hostile"),
    "clients": ("e2e",),
    "runs": ("contract", "integration"),
}
ANYWHERE = ("hostile/fuzz",)  # properties: no sandbox, and much to compute


def lines_first(items: list[pytest.Item]) -> None:
    """Put tests of lines before all others: they take longest."""
    items.sort(key=lambda item: group_of(item.nodeid) not in LINES)


def group_of(nodeid: str) -> str:
    """Return the name of a line, or the file. nodeid: tests/FOLDER/…/FILE.py::…"""
    file = nodeid.partition("::")[0]
    path = file.removeprefix("tests/")
    if not path.startswith(ANYWHERE):
        for line, folders in LINES.items():
            if path.partition("/")[0] in folders:
                return line
    return file


def scheduler(config: pytest.Config, log: object) -> Any:
    """Return what gives each worker a group at a time."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # xdist has no types

    class Groups(LoadScopeScheduling):  # type: ignore[misc] # so it has none to inherit
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)
