"""Uses and denials between two flushes, counted: one entry a second and run, however much a run does. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from moat.audit.canonical import plain
from moat.audit.log import Note

SHOWN_AT_ONCE = 64  # denials told apart in one entry
MAX_SHOWN = 10_000  # and in all of a run: a run that asks for ever new names must not fill the disk


@dataclass(slots=True)
class _Run:
    """What one run did since the last flush. shown: denials that were told apart, of all times."""

    uses: Counter[tuple[str, str]] = field(default_factory=Counter)
    denials: Counter[tuple[str, str]] = field(default_factory=Counter)
    more: int = 0
    shown: int = 0


class Counts:
    """The counters of all runs."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._touched: dict[str, None] = {}

    def used(self, run_id: str, grant: str, authority: str, count: int) -> None:
        """Count uses of a grant after the first of its tunnel."""
        self._of(run_id).uses[grant, authority] += count

    def denied(self, run_id: str, authority: str, why: str, count: int = 1) -> None:
        """Count what was not let out."""
        run, key = self._of(run_id), (authority, why)
        if key not in run.denials and (len(run.denials) >= SHOWN_AT_ONCE or run.shown >= MAX_SHOWN):
            run.more += count
            return
        run.shown += key not in run.denials
        run.denials[key] += count

    def taken(self, at: str) -> Iterator[Note]:
        """Yield what was counted since the last time, as notes, and begin anew."""
        touched, self._touched = self._touched, {}
        for run_id in touched:
            yield from self._notes(run_id, self._runs[run_id], at)

    def taken_of(self, run_id: str, at: str) -> Iterator[Note]:
        """Yield what was counted of a run that is over, and forget it."""
        self._touched.pop(run_id, None)
        run = self._runs.pop(run_id, None)
        if run is not None:
            yield from self._notes(run_id, run, at)

    def _of(self, run_id: str) -> _Run:
        self._touched[run_id] = None
        return self._runs.setdefault(run_id, _Run())

    def _notes(self, run_id: str, run: _Run, at: str) -> Iterator[Note]:
        if run.uses:
            uses = [{"grant": plain(grant), "authority": plain(authority), "count": count}
                    for (grant, authority), count in run.uses.items()]  # fmt: skip
            yield Note(run_id, at, "used-again", {"uses": uses})
        if run.denials or run.more:
            denials = [{"authority": plain(authority), "why": plain(why), "count": count}
                       for (authority, why), count in run.denials.items()]  # fmt: skip
            yield Note(run_id, at, "denied", {"denials": denials} | ({"more": run.more} if run.more else {}))
        run.uses, run.denials, run.more = Counter(), Counter(), 0
