"""The audit's one writer: takes what happens, enters it in batches, and answers who waits for it.

    note ─────────▶ ┐                                        ┌▶ within a second
    used, denied ─▶ ┼─ counted ─▶ queue ─▶ one transaction ──┤
    Spend, noted ─▶ ┘  (at once)                             └▶ answered: entered, or why not

A full disk, or a log that cannot be opened, costs those that wait an answer that says so; all else stays in the queue
until there is room. The keyring (`audit_seal`) is never waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import moat
from moat.api.errors import AuditUnwritable
from moat.api.runs import RunInfo
from moat.audit.canonical import canonical, plain
from moat.audit.chain import DAEMON_STARTED, DAEMON_STOPPED, ENDED, INSTALLATION, STARTED
from moat.audit.log import AuditLog, Note
from moat.daemon.audit_counts import Counts
from moat.daemon.audit_notes import RUN_OVER, Left
from moat.daemon.audit_seal import Signing
from moat.daemon.protocol import NoteRequest
from moat.daemon.registration import now
from moat.proxy.messages import Noted, Spend, Uses

FLUSH_S = 1.0
LOOK_S = 5.0  # between two looks for notes that were left
CLOSE_S = 5.0
MAX_WAITING = 10_000  # notes, while nothing can be written

log = logging.getLogger(__name__)

Done = Callable[[str], None]  # of what keeps it from being entered, "" for nothing


@dataclass(frozen=True, slots=True)
class _Item:
    note: Note
    done: Done | None = None


class Auditor:
    """Used by one event loop. answer: to the worker. left: what was done while there was no daemon.

    problem: what keeps it from writing now, "" for nothing.
    """

    def __init__(
        self, path: Path, signing: Signing, answer: Callable[[Noted], None], is_live: Callable[[str], bool],
        left: Callable[[], list[Left]] = list,
    ) -> None:  # fmt: skip
        self._path = path
        self._signing = signing
        self._answer = answer
        self._is_live = is_live
        self._left = left
        self._log: AuditLog | None = None
        self._live: tuple[RunInfo, ...] = ()
        self._items: deque[_Item] = deque()
        self._counts = Counts()
        self._lost = 0
        self._looked_at = -LOOK_S
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self.problem = ""

    def begin(self, live: Collection[RunInfo]) -> None:
        """Begin. live: the runs of the daemon before this one that go on."""
        self._live = tuple(live)

    def note(self, chain: str, kind: str, facts: Mapping[str, object] | None = None) -> None:
        """Enter something within a second."""
        if len(self._items) >= MAX_WAITING:
            self._lost += 1
        else:
            self._items.append(_Item(Note(chain, now(), kind, _writable(facts or {}))))

    async def noted(self, chain: str, kind: str, facts: Mapping[str, object], at: str = "") -> None:
        """Return once something is entered for good. Raises AuditUnwritable."""
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ask(Note(chain, at or now(), kind, _writable(facts)), partial(_settle, waiting))
        if problem := await waiting:
            raise AuditUnwritable(problem, hint="run: moat doctor")

    def take_spend(self, message: Spend) -> None:
        """Take that a run is about to spend grants; the worker is answered when that is entered for good."""
        answer = partial(self._spent, message.id)
        if not self._is_live(message.run_id) or not message.grants:
            return answer("no live run spends it")
        at, last = now(), len(message.grants) - 1
        for number, grant in enumerate(message.grants):
            facts = {"grant": grant, "authority": message.authority, "via": message.via, "tunnel": message.tunnel}
            self._ask(Note(message.run_id, at, "used", _writable(facts)), answer if number == last else None)
        return None

    def take_uses(self, message: Uses) -> None:
        """Take how often a run has spent grants again."""
        if self._is_live(message.run_id):
            for grant, authority, count in message.counts:
                self._counts.used(message.run_id, grant, authority, count)

    def denied(self, run_id: str, authority: str, why: str) -> None:
        """Take that something of a run's was not let out."""
        self._counts.denied(run_id, authority, why)

    def ended(self, info: RunInfo) -> None:
        """Take that a run is over: the last entry of its chain. Never left out, however much waits."""
        self._items.extend(map(_Item, self._counts.taken_of(info.run_id, now())))
        facts = {"state": info.state, "exit_code": info.exit_code, "requests": info.requests, "denied": info.denied}
        self._items.append(_Item(Note(info.run_id, now(), ENDED, _writable(facts))))

    async def flushed(self) -> None:
        """Enter all there is, and have it signed if there is a key."""
        async with self._turn:
            self._looked_at = -LOOK_S
            await self._flush()
            await self._sign(at_once=True)

    async def forever(self) -> None:
        """Enter and sign what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._signing.keep_key())
            while True:
                async with self._turn:
                    await self._flush()
                    await self._sign()
                await self._woken()

    async def close(self) -> None:
        """Enter and sign all there is, and have that remembered, bounded; nothing is entered after it."""
        self.note(INSTALLATION, DAEMON_STOPPED)
        await self.flushed()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._signing.remember()
        except TimeoutError:
            log.warning("the keyring does not answer: the audit's last head is not remembered there")
        async with self._turn:
            if self._log is not None:
                await asyncio.to_thread(self._log.close)
            self._log, self._path = None, Path()
        if self._items:
            log.error("entries of the audit are lost", extra={"count": len(self._items), "problem": self.problem})

    def _ask(self, note: Note, done: Done | None) -> None:
        self._items.append(_Item(note, done))
        if done is not None:
            self._wake.set()

    def _spent(self, number: int, problem: str) -> None:
        self._answer(Noted(number, problem))

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _sign(self, *, at_once: bool = False) -> None:
        if self._log is not None:
            await self._signing.sign(self._log, at_once=at_once)

    async def _flush(self) -> None:
        """Enter what waits, in one transaction."""
        self._wake.clear()
        self._items.extend(map(_Item, self._counts.taken(now())))
        if self._lost and len(self._items) < MAX_WAITING:
            self._items.append(_Item(Note(INSTALLATION, now(), "lost", {"count": self._lost})))
            self._lost = 0
        items, self._items = [*self._items], deque()
        if not items and time.monotonic() - self._looked_at < LOOK_S:
            return None
        try:
            taken = await asyncio.to_thread(self._enter, items)
        except (AuditUnwritable, OSError) as failure:
            return self._put_back(items, failure.problem if isinstance(failure, AuditUnwritable) else str(failure))
        if self.problem:
            log.info("the audit can be written again")
        self.problem = ""
        for item, is_taken in zip(items, taken, strict=True):
            if item.done is not None:
                item.done("" if is_taken else RUN_OVER)
        return None

    def _enter(self, items: list[_Item]) -> list[bool]:
        """Enter items, and before them what opening the log and the folder of notes brings. In a thread."""
        if self._path == Path():  # closed
            raise AuditUnwritable("the audit is closed")
        if self._log is None:
            self._log = AuditLog(self._path)
            items[:0] = map(_Item, beginning(self._log, self._live))
        self._looked_at = time.monotonic()
        items += (_Item(_note_of(request), done) for request, done in self._left())
        return self._log.append([item.note for item in items]) if items else []

    def _put_back(self, items: Sequence[_Item], problem: str) -> None:
        """Keep what nobody waits for, in its order; tell the others."""
        if problem != self.problem:
            log.error("the audit cannot be written", extra={"problem": problem})
        self.problem = problem
        waiting = {id(item) for item in items if item.done is not None}
        self._items.extendleft(item for item in reversed(items) if id(item) not in waiting)
        for item in items:
            if item.done is not None:
                item.done(problem)


def beginning(log_: AuditLog, live: Sequence[RunInfo]) -> list[Note]:
    """Return what a daemon enters first: how the one before it ended, and what became of that one's runs."""
    before = log_.last_kind()
    after = "the first start" if not before else "a stop" if before == DAEMON_STOPPED else "a kill, or a loss of power"
    ahead = log_.unsealed()
    unsealed = sum(1 for name, tip in ahead.items() if tip.seq)
    notes = [Note(INSTALLATION, now(), DAEMON_STARTED,
                  {"version": moat.__version__, "after": after, "unsealed_chains": unsealed})]  # fmt: skip
    alive = {info.run_id for info in live}
    known = set(log_.open_runs)
    notes += [Note(run_id, now(), ENDED, {"state": "lost"}) for run_id in sorted(known - alive)]
    for info in live:
        notes.append(Note(info.run_id, now(), "taken-over" if info.run_id in known else STARTED,
                          {"name": plain(info.name), "grants": [*info.grants]}))  # fmt: skip
    return notes


def _writable(facts: Mapping[str, object]) -> Mapping[str, object]:
    """Return facts as they can be written: what comes from elsewhere is bounded, and no reason not to write."""
    clean = {name: plain(value) if isinstance(value, str) else value for name, value in facts.items()}
    try:
        canonical(clean)
    except ValueError:
        return {"unwritable": sorted(plain(str(name)) for name in facts)}
    return clean


def _note_of(request: NoteRequest) -> Note:
    return Note(request.run_id or INSTALLATION, request.at or now(), request.kind, _writable({**request.facts}))


def _settle(waiting: asyncio.Future[str], problem: str) -> None:
    if not waiting.done():
        waiting.set_result(problem)
