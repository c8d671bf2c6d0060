"""What runs leave on the disk, and how it is removed: the records of runs that are over, and folders of nobody's.

    runs/<id>/     a run that is over: its record, its exchanges, what it printed
    doors/<id>/    inside/<id>/     of a run that no daemon holds: a crash left them
    <MOAT_HOME>-volumes/<hash>/     volumes of a workspace that is gone

Nothing of a run that lives, or that says so and may be taken over by the next daemon, is ever touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moat.api.runs import RunInfo
from moat.ids import RUN_ID
from moat.paths import Home, entries_below, remove_tree
from moat.runs.volumes import volumes_of_nobody
from moat.trace.store import LIVE_STATES, RunStore


@dataclass(frozen=True, slots=True)
class Remains:
    """One thing that may go. what: for people. size: bytes on the disk."""

    what: str
    path: Path
    size: int


def old_runs(home: Home, older_than: timedelta, live: Collection[str], now: datetime | None = None) -> list[Remains]:
    """Return what is kept of runs that ended so long ago, oldest first. live: ids that the daemon holds."""
    limit = (now or datetime.now(UTC)) - older_than
    found = [info for info in RunStore(home).list() if _is_over(info, live) and _ended_at(info) <= limit]
    return [_of_run(home, info) for info in reversed(found)]


def strays(home: Home, live: Collection[str]) -> list[Remains]:
    """Return the folders that a crash left, of runs that are over or unknown."""
    over = {info.run_id: _is_over(info, live) for info in RunStore(home).list()}
    kinds = {
        home.root / "doors": "a door that leads nowhere",
        home.root / "inside": "files of a run that is over",
        home.copies: "what a run worked on, with work that moat diff, or moat wt list, would keep",
    }
    return [
        Remains(f"{what}, of {path.name}", path, size_of(path))
        for folder, what in kinds.items()
        for path in _folders(folder)
        if (run_id := path.name.partition(".")[0]) not in live and over.get(run_id, True)
    ] + [
        Remains(f"volumes of {workspace}, which is gone: {', '.join(names)}", path, size_of(path))
        for path, workspace, names in volumes_of_nobody(home)
    ]


def remove(remains: Remains) -> None:
    """Remove it whole: it has another name before its first file goes. Raises OSError."""
    aside = remains.path.with_name(f".{remains.path.name}.removed")
    remove_tree(aside)  # of a removal that was cut short
    remains.path.rename(aside)
    remove_tree(aside)


def of_run(home: Home, info: RunInfo, live: Collection[str]) -> Remains | None:
    """Return what is kept of one run; None while it lives."""
    return _of_run(home, info) if _is_over(info, live) else None


def size_of(path: Path) -> int:
    """Return how many bytes the files below path hold; those that vanish meanwhile count nothing."""
    size = 0
    for entry in entries_below(path):
        with contextlib.suppress(OSError):
            size += entry.stat(follow_symlinks=False).st_size
    return size


def _of_run(home: Home, info: RunInfo) -> Remains:
    path = home.run(info.run_id)
    return Remains(f"run {info.name} ({info.run_id}), {info.state} {info.ended_at[:10]}".rstrip(), path, size_of(path))


def _is_over(info: RunInfo, live: Collection[str]) -> bool:
    return info.state not in LIVE_STATES and info.run_id not in live


def _ended_at(info: RunInfo) -> datetime:
    try:
        return datetime.fromisoformat(info.ended_at or info.started_at)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(each for each in parent.iterdir() if RUN_ID.fullmatch(each.name.partition(".")[0]))
