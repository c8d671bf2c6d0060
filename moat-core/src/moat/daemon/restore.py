"""Takes over the runs of the daemon before this one: same token, same policy, same port, the same gate and door.

    runs.json ─▶ published, closed (503 with the reason) ─▶ door or port again ─▶ gate comes back ─┐
                          └─▶ grants resolved, from the run's own profile; tried until it works ───┴─▶ open

Nothing is let out before both have happened. A run whose credentials are not to be had stays, and stays closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from moat.api.errors import MoatError, PluginError, StoreLocked, UsageError
from moat.api.runs import RunContext, RunSpec
from moat.daemon import audit_facts
from moat.daemon.doors import Doors
from moat.daemon.grants import Resolved
from moat.daemon.listening import listening
from moat.daemon.parts import Parts
from moat.daemon.process import start_time
from moat.daemon.registry import Entry, Place
from moat.daemon.watch import GRACE_S, Watches

FIRST_DELAY_S, MAX_DELAY_S = 0.5, 60.0  # each attempt may ask the user to unlock a keyring
PLACE_EVERY_S = 0.25

log = logging.getLogger(__name__)


class Restore:
    """Brings runs back. catch_up: renews a run that was resolved too early. group: where what has to wait waits."""

    def __init__(
        self, parts: Parts, doors: Doors, watches: Watches, catch_up: Callable[[str, Resolved], Awaitable[None]],
        group: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        self._parts = parts
        self._doors = doors
        self._watches = watches
        self._catch_up = catch_up
        self._group = group
        self._waiting: dict[str, None] = {}  # in the order of their coming
        self._work = asyncio.Event()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The runs whose credentials are not there yet."""
        return tuple(self._waiting)

    def begin(self, entries: Sequence[Entry]) -> None:
        """Make runs known again, closed, and look for their gates. Nothing in here waits."""
        for entry in entries:
            self._parts.registry.publish(entry)
            self._parts.worker.put(entry.context, self._parts.store.read_names(entry.run_id))
            if not entry.unread:  # closed for as long as this daemon lives, otherwise
                self._waiting[entry.run_id] = None
            log.info("run restored", extra={"run_id": entry.run_id, "state": entry.info.state})
            if not self._placed(entry):
                self._group.create_task(self._place(entry), name=f"place {entry.run_id}")
        self._work.set()

    def done(self, run_id: str) -> None:
        """Take it that a run's credentials came some other way: it was registered again."""
        self._waiting.pop(run_id, None)

    async def resolve_forever(self) -> None:
        """Fetch the credentials of waiting runs, again and again with growing pauses, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            delay_s = FIRST_DELAY_S
            while self._waiting:
                await self._resolve_all()
                if self._waiting:
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, MAX_DELAY_S)

    async def _resolve_all(self) -> None:
        is_locked = False  # one key for all of them: the user is asked once a round
        for run_id in self.waiting:
            entry = self._parts.registry.get(run_id)
            if entry is None:
                self._waiting.pop(run_id, None)
            elif not (is_locked and asks_the_store(entry)):
                is_locked |= await self._resolve(entry)

    async def _resolve(self, entry: Entry) -> bool:
        """Fetch one run's credentials and open it, or say why not; return whether the store is locked."""
        run_id = entry.run_id
        try:
            resolved = await asyncio.to_thread(self._parts.grants.resolve, spec_again(entry), entry.extras)
        except MoatError as failure:
            self._hold(run_id, failure)
            return isinstance(failure, StoreLocked)
        except Exception:  # the top of one attempt: a provider's mistake must not end the daemon
            log.exception("a restored run's grants could not be resolved", extra={"run_id": run_id})
            self._hold(run_id, PluginError("a provider failed", hint="run: moat proxy logs"))
        else:
            for facts in audit_facts.marks_of(resolved):
                self._parts.auditor.note(run_id, "resolved", facts)
            self._release(run_id, resolved)
            await self._catch_up(run_id, resolved)
        return False

    def _release(self, run_id: str, resolved: Resolved) -> None:
        entry = self._parts.registry.get(run_id)
        if entry is None or run_id not in self._waiting:  # it ended, or was registered again, meanwhile
            return
        del self._waiting[run_id]
        is_open = self._doors.is_open(run_id) or not entry.place.needs_door
        self._put(entry, served(entry.context, resolved, is_open=is_open))
        log.info("a restored run's credentials are there", extra={"run_id": run_id, "grants": entry.info.grants})

    def _hold(self, run_id: str, failure: MoatError) -> None:
        entry = self._parts.registry.get(run_id)
        hint = "; ".join((failure.hint or "run: moat proxy logs").splitlines())
        why = f"this run's credentials cannot be had since the daemon was replaced: {failure.problem}; hint: {hint}"
        if entry is not None and run_id in self._waiting and entry.context.why_closed != why:
            log.warning("a restored run waits", extra={"run_id": run_id, "problem": failure.problem})
            self._put(entry, replace(entry.context, is_open=False, why_closed=why))

    def _put(self, entry: Entry, context: RunContext) -> None:
        self._parts.registry.replace(replace(entry, context=context))
        self._parts.worker.put(context)

    async def _place(self, entry: Entry) -> None:
        """Try to get a run's door or port again, which the daemon before may still hold; in the end give it up."""
        try:
            async with asyncio.timeout(GRACE_S):
                while not self._placed(entry):  # noqa: ASYNC110 # another process lets go of it
                    await asyncio.sleep(PLACE_EVERY_S)
        except TimeoutError:
            log.error("a run's door or port cannot be had again", extra={"run_id": entry.run_id})
            await self._watches.lose(entry.run_id)

    def _placed(self, entry: Entry) -> bool:
        if self._parts.registry.get(entry.run_id) is None:
            return True
        place, door = entry.place, None
        try:
            if place.needs_door:
                door = self._doors.reopen(entry)
            elif place.listen_on:
                self._parts.worker.listen(entry.run_id, "token", listening((place.port,), place.listen_on))
        except (OSError, UsageError) as failure:
            log.info("a run has to wait for its place", extra={"run_id": entry.run_id, "problem": str(failure)})
            return False
        self._watches.start(entry.run_id, door)
        if entry.info.container_id:
            self._watches.told(entry.run_id)
        if is_over(place):
            self._watches.gone(entry.run_id)
        return True


def spec_again(entry: Entry) -> RunSpec:
    """Return what plugins are shown of a run that is resolved again."""
    info = entry.info
    return RunSpec(
        workspace=Path(info.workspace),
        command=info.command,
        name=info.name,
        grants=info.grants,
        policy=entry.context.policy,
        runtime=info.runtime,
        profile=info.profile,
    )


def asks_the_store(entry: Entry) -> bool:
    """Return whether a run spends stored credentials."""
    return bool(entry.info.grants) or any(server.grant for server in entry.extras.mcp_servers)


def served(context: RunContext, resolved: Resolved, *, is_open: bool) -> RunContext:
    """Return context with what was resolved, and nothing in the way of it."""
    return replace(
        context, rules=resolved.rules, endpoints=resolved.endpoints, why_closed="", is_open=is_open or context.is_open
    )


def is_over(place: Place) -> bool:
    """Return whether the process that launched a run is gone: then its gate is too, or will be, and nobody comes."""
    return bool(place.launcher and place.began) and start_time(int(place.launcher)) != place.began
