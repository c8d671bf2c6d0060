"""The audit's one writer: takes what happens, enters it in batches, and answers who waits for it.

    note ─────────▶ ┐                                        ┌▶ within a second
    used, denied ─▶ ┼─ counted ─▶ queue ─▶ one transaction ──┤
    noted ────────▶ ┘  (at once)                             └▶ answered: entered, or why not
    first uses ───▶ desk, in threads of its own (`audit_desk`) ─▶ one transaction ─▶ the worker is answered

One thread at a time uses the log. A full disk, or a log that cannot be opened, costs those that wait an answer that
says so; all else stays in the queue until there is room. The keyring (`audit_seal`) is never waited for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
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
from moat.daemon.audit_desk import Desk
from moat.daemon.audit_notes import RUN_OVER, Left
from moat.daemon.audit_seal import Signing
from moat.daemon.protocol import NoteRequest
from moat.daemon.registration import now
from moat.proxy.messages import Uses

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
    """Used by one event loop, but for the desk. left: what was done while there was no daemon.

    desk: where workers have first uses entered. problem: what keeps it from writing now, "" for nothing.
    is_live: of a run's id; asked by threads too.
    """

    def __init__(
        self, path: Path, signing: Signing, is_live: Callable[[str], bool], left: Callable[[], list[Left]] = list
    ) -> None:
        self._path = path
        self._signing = signing
        self._is_live = is_live
        self._left = left
        self._log: AuditLog | None = None
        self._ahead: list[Note] = []  # what opening it brings, until that is entered
        self._live: tuple[RunInfo, ...] = ()
        self._items: deque[_Item] = deque()
        self._counts = Counts()
        self._lost = 0
        self._looked_at = -LOOK_S
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._in_log = threading.RLock()
        self.desk = Desk(self._enter_uses, is_live)
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
            await asyncio.to_thread(self._shut)
        if self._items:
            log.error("entries of the audit are lost", extra={"count": len(self._items), "problem": self.problem})

    def _ask(self, note: Note, done: Done | None) -> None:
        self._items.append(_Item(note, done))
        if done is not None:
            self._wake.set()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _sign(self, *, at_once: bool = False) -> None:
        if self._log is not None:
            await self._signing.sign(self._log, self._in_log, at_once=at_once)

    async def _flush(self) -> None:
        """Enter what waits, in one transaction."""
        self._wake.clear()
        self._items.extend(map(_Item, self._counts.taken(now())))
        if self._lost and len(self._items) < MAX_WAITING:
            self._items.append(_Item(Note(INSTALLATION, now(), "lost", {"count": self._lost})))
            self._lost = 0
        if not self._items and time.monotonic() - self._looked_at < LOOK_S:
            return
        for done, problem in await asyncio.to_thread(self._enter):
            done(problem)

    def _enter(self) -> list[tuple[Done, str]]:
        """Enter what waits, and what is in the folder of notes; return whom to tell what. In a thread."""
        self._looked_at = time.monotonic()
        try:
            left = [_Item(_note_of(request), done) for request, done in self._left()]
        except OSError as failure:
            log.error("what was left for the audit cannot be read", extra={"problem": str(failure)})
            left = []
        with self._in_log:
            items = [*_popped(self._items), *left]
            try:
                taken = self._append([item.note for item in items])
            except AuditUnwritable as failure:
                self._items.extendleft(item for item in reversed(items) if item.done is None)
                return [(item.done, failure.problem) for item in items if item.done is not None]
        told = ["" if is_taken else RUN_OVER for is_taken in taken]
        return [(item.done, problem) for item, problem in zip(items, told, strict=True) if item.done is not None]

    def _enter_uses(self, notes: Sequence[Note]) -> list[bool]:
        """Enter first uses, after what happened before them. In a thread of the desk's."""
        with self._in_log:
            ahead: list[_Item] = []
            while self._items and self._items[0].done is None:  # who waits is told in the loop, which is under way
                ahead.append(self._items.popleft())
            try:
                return self._append([*(item.note for item in ahead), *notes])[len(ahead) :]
            except AuditUnwritable:
                self._items.extendleft(reversed(ahead))
                raise

    def _append(self, notes: Sequence[Note]) -> list[bool]:
        """Enter notes, all or none, and before them what opening the log brings. In any thread."""
        try:
            with self._in_log:
                if self._path == Path():  # closed
                    raise AuditUnwritable("the audit is closed")
                if self._log is None:
                    self._log = AuditLog(self._path)
                    self._ahead = beginning(self._log, self._live)
                ahead = len(self._ahead)
                taken = self._log.append([*self._ahead, *notes]) if ahead or notes else []
                self._ahead = []
        except AuditUnwritable as failure:
            self._found(failure.problem)
            raise
        self._found("")
        return taken[ahead:]

    def _found(self, problem: str) -> None:
        """Remember what keeps it from writing, and log it when that is new."""
        if problem and problem != self.problem:
            log.error("the audit cannot be written", extra={"problem": problem})
        elif self.problem and not problem:
            log.info("the audit can be written again")
        self.problem = problem

    def _shut(self) -> None:
        with self._in_log:
            if self._log is not None:
                self._log.close()
            self._log, self._path = None, Path()


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


def _popped(items: deque[_Item]) -> list[_Item]:
    """Take all that is there, while others may add to it."""
    return [items.popleft() for _ in range(len(items))]
