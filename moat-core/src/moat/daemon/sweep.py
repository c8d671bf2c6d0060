"""What a daemon that died left behind, put in order before its successor serves. Nothing is left for the user."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from moat.api.runs import RunInfo
from moat.daemon.registration import now
from moat.daemon.registry import Entry
from moat.paths import UNWRITABLE, Home, remove_drafts
from moat.trace.store import LIVE_STATES, RunStore

log = logging.getLogger(__name__)


def still_live(store: RunStore, entries: Sequence[Entry]) -> list[Entry]:
    """Return the runs that were not over when the last daemon died, as their records say, which are written at once.

    But for counters: those are written down here and there, and the higher is the later.
    """
    known = {info.run_id: info for info in store.list()}
    told = [replace(entry, info=_latest(known.get(entry.run_id, entry.info), entry.info)) for entry in entries]
    return [entry for entry in told if entry.info.state in LIVE_STATES]


def sweep(home: Home, store: RunStore, kept: Collection[str] = ()) -> list[RunInfo]:
    """Set broken records aside, mark the dead daemon's runs as lost, remove doors and drafts; return what is uncleared.

    That is lost runs, and those that had ended when launcher and daemon were killed before they had cleared up.
    kept: runs that go on. Only the lock's holder may call it.
    """
    store.set_aside_broken()
    uncleared: list[RunInfo] = []
    for info in store.list():
        if info.run_id in kept:
            continue
        if info.state in LIVE_STATES:
            uncleared.append(replace(info, state="lost", ended_at=now()))
            _write(store, uncleared[-1])
            log.warning("a run was lost with the daemon before this one", extra={"run_id": info.run_id})
        elif home.inside(info.run_id).exists() or home.control(info.run_id).exists():  # these go last
            uncleared.append(info)
    for folder in _folders(home.root / "doors"):
        if folder.name not in kept:  # a gate that comes back looks in the very folder that it knows
            shutil.rmtree(folder, ignore_errors=True)
    for folder in (home.root, *_folders(home.root), *_folders(home.runs), *_folders(home.root / "profiles")):
        remove_drafts(folder)
    return uncleared


def _write(store: RunStore, info: RunInfo) -> None:
    try:
        store.write(info)
    except UNWRITABLE as failure:  # a full disk must not keep the others from being taken over; the next sweep tells
        log.warning("a run's record could not be written", extra={"run_id": info.run_id, "problem": str(failure)})


def _latest(record: RunInfo, kept: RunInfo) -> RunInfo:
    requests, denied = max(record.requests, kept.requests), max(record.denied, kept.denied)
    return replace(record, requests=requests, denied=denied)


def _folders(parent: Path) -> list[Path]:
    try:
        return list(parent.iterdir())
    except OSError:
        return []
