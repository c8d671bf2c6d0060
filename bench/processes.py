"""Clocks and memory of a process and everything it started, from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def tree(pid: int) -> Iterator[int]:
    """Yield pid and its descendants that live."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """Return the seconds that the threads of a tree have run, user and system, to the nanosecond."""
    return sum(_thread_ns(path) for each in tree(pid) for path in Path(f"/proc/{each}/task").glob("*/schedstat")) / 1e9


def pss_mb(pid: int) -> float:
    """Return the memory of a tree: its own, and its share of what is shared."""
    return sum(_pss_kb(each) for each in tree(pid)) / 1024


def _thread_ns(schedstat: Path) -> int:
    return int(schedstat.read_text().split()[0])


def _pss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
