"""The runs' folders: who ran, and how it ended. Written by the daemon only; `moat list` and `moat trace` read.

runs/<id>/run.json       RunInfo, replaced whole
runs/<id>/names.json     names that the run was told addresses for
runs/<id>/network.jsonl  exchanges (`network.py`)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from moat.api.errors import RunNotFound
from moat.api.runs import RunInfo
from moat.ids import RUN_ID, checked_run_id
from moat.paths import Home, set_aside, write_private
from moat.trace.values import decode, parsed

LIVE_STATES = ("starting", "running")

log = logging.getLogger(__name__)


class RunStore:
    """Reads and writes what is kept of each run."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def network(self, run_id: str) -> Path:
        """Return the path of a run's exchanges; there may be none."""
        return self._home.run(checked_run_id(run_id)) / "network.jsonl"

    def write(self, info: RunInfo) -> None:
        """Replace what is known about a run, in one step."""
        write_private(self._file(info.run_id), json.dumps(asdict(info), indent=2).encode())

    def read(self, run_id: str) -> RunInfo:
        """Return what is known about a run. Raises RunNotFound when there is none, or nothing readable."""
        try:
            return _parse(self._file(run_id).read_bytes(), run_id)
        except FileNotFoundError:
            raise RunNotFound(f"no run {run_id}", hint="run: moat list") from None
        except (OSError, ValueError) as failure:
            raise RunNotFound(f"what is kept of {run_id} cannot be read: {failure}", hint="run: moat list") from failure

    def exists(self, run_id: str) -> bool:
        """Return whether this id was ever used here."""
        return self._home.run(checked_run_id(run_id)).exists()

    def list(self, live: Collection[str] | None = None) -> list[RunInfo]:
        """Return all runs, newest first; unreadable ones are left out with a warning.

        live: ids that a live daemon knows; a run that says it lives and is not among them is shown as lost.
        None: take the files' word.
        """
        found: list[RunInfo] = []
        for run_id in self._ids():
            try:
                found.append(self.read(run_id))
            except RunNotFound as failure:
                log.warning("a run cannot be read", extra={"run_id": run_id, "problem": failure.problem})
        found.sort(key=lambda info: (info.started_at, info.run_id), reverse=True)
        return found if live is None else [as_seen(info, live) for info in found]

    def find(self, reference: str, live: Collection[str] | None = None) -> RunInfo:
        """Return the run that an id, the beginning of an id, or a name means; see `choose`."""
        if RUN_ID.fullmatch(reference):
            info = self.read(reference)
            return info if live is None else as_seen(info, live)
        return choose(reference, self.list(live))

    def newest(self, live: Collection[str] | None = None) -> RunInfo:
        """Return the run that began last, as `list` does. Raises RunNotFound where there is none."""
        if not (known := self.list(live)):
            raise RunNotFound("there are no runs yet", hint="run: moat run -- COMMAND")
        return known[0]

    def set_aside_broken(self) -> tuple[Path, ...]:
        """Rename every run.json that cannot be parsed, warn, and return the new paths. For the daemon's start."""
        moved: tuple[Path, ...] = ()
        for run_id in self._ids():
            file = self._file(run_id)
            try:
                _parse(file.read_bytes(), run_id)
            except (IsADirectoryError, ValueError) as failure:
                moved = (*moved, *_aside(file, str(failure)))
            except OSError:  # there is none, or it may be read the next time; `list` tells
                continue
        return moved

    def write_names(self, run_id: str, names: Mapping[str, str]) -> None:
        """Keep the addresses that a run's names were given, so that they stay the same when the daemon is replaced."""
        file = self._home.run(checked_run_id(run_id)) / "names.json"
        write_private(file, json.dumps(dict(names), indent=2).encode())

    def read_names(self, run_id: str) -> dict[str, str]:
        """Return a run's names; empty when there are none or the file is broken: they are then given anew."""
        try:
            data = parsed((self._home.run(checked_run_id(run_id)) / "names.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): str(address) for name, address in data.items()} if isinstance(data, dict) else {}

    def _file(self, run_id: str) -> Path:
        return self._home.run(checked_run_id(run_id)) / "run.json"

    def _ids(self) -> Iterable[str]:
        try:
            entries = list(self._home.runs.iterdir())
        except FileNotFoundError:
            return []
        return [entry.name for entry in entries if RUN_ID.fullmatch(entry.name)]


def as_seen(info: RunInfo, live: Collection[str]) -> RunInfo:
    """Return info, as lost if it says that it lives while no live daemon knows it."""
    return replace(info, state="lost") if info.state in LIVE_STATES and info.run_id not in live else info


def choose(reference: str, runs: Iterable[RunInfo]) -> RunInfo:
    """Return the run that reference means: the beginning of an id, else a name.

    Of several finished runs with one name it is the newest, and a live one goes before them.
    Raises RunNotFound when nothing matches, or, listing them, when several ids or several live names do.
    """
    known = sorted(runs, key=lambda info: (info.started_at, info.run_id), reverse=True)
    if reference.startswith("run_") and (by_id := [info for info in known if info.run_id.startswith(reference)]):
        return _only(reference, by_id)
    named = [info for info in known if info.name == reference]
    if not named:
        raise RunNotFound(f"no run is called {reference!r}", hint="run: moat list")
    return _only(reference, [info for info in named if info.state in LIVE_STATES] or named[:1])


def _only(reference: str, matches: list[RunInfo]) -> RunInfo:
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(f"{info.run_id} ({info.name}, {info.state})" for info in matches)
    raise RunNotFound(f"{reference!r} means several runs: {listed}", hint="name one by its whole id")


def _aside(file: Path, problem: str) -> tuple[Path, ...]:
    try:
        aside = set_aside(file)
    except OSError as failure:
        log.warning("a broken run.json stays", extra={"path": str(file), "problem": str(failure)})
        return ()
    log.warning("a broken run.json was set aside", extra={"path": str(aside), "problem": problem})
    return (aside,)


def _parse(data: bytes, run_id: str) -> RunInfo:
    info = decode(RunInfo, parsed(data))
    if info.run_id != run_id:
        raise ValueError("it names another run")
    return info
