"""Follows each live run until it is over, and is the one place where a run ends.

door:    nobody came ─┐              process: no sandbox came ─┐
         gate gone  ──┴─▶ way out shut ─▶ stopped or lost ◀────┴─ gone    ─▶ reaped, unless the CLI does it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Literal

from moat.api.errors import DaemonError, RunNotFound
from moat.api.runs import RunInfo
from moat.daemon.doors import Door
from moat.daemon.liveness import process_end
from moat.daemon.parts import Parts
from moat.daemon.reaper import remove_files
from moat.daemon.registration import now
from moat.daemon.registry import Entry, Place
from moat.paths import UNWRITABLE

GRACE_S = 60.0  # between register and the sandbox's first sign: a container engine may be slow
LINGER_S = 2.0  # a CLI that lives tells within this time that its run is over, and cleans up itself
REAP_TIMEOUT_S = 30.0
CALM_S = 5.0  # before the daemon leaves, for runs that are being started
NO_EXIT_CODE = -1  # what observers of a run's end are told when nobody knows

log = logging.getLogger(__name__)


class Watches:
    """One task a run, in group, and what happens at the milestones of a run's life."""

    def __init__(self, parts: Parts, group: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._group = group
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, asyncio.Event] = {}
        self._is_leaving = False

    def start(self, run_id: str, door: Door | None) -> None:
        """Follow a run from now on; its door is closed when that ends."""
        self._told[run_id] = asyncio.Event()
        task = self._group.create_task(self._watch(run_id, door), name=f"watch {run_id}")
        task.add_done_callback(partial(self._forget, run_id, door))  # runs even if the task never began
        self._tasks[run_id] = task

    async def restart_without_door(self, run_id: str) -> None:
        """Follow a run by its processes from now on: its door is closed, and cannot be reached."""
        if (task := self._tasks.get(run_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
        self.start(run_id, None)

    def cancel(self, run_id: str) -> None:
        """Follow a run no more: whoever calls ends it, and cleans up."""
        if (task := self._tasks.get(run_id)) is not None:
            task.cancel()

    def told(self, run_id: str) -> None:
        """Take it that a run's sandbox exists."""
        if (told := self._told.get(run_id)) is not None:
            told.set()

    def opened(self, run_id: str) -> None:
        """Note that a run's command may start now, and tell the observers, once."""
        entry = self._parts.registry.get(run_id)
        if entry is not None and entry.info.state == "starting":
            info = replace(entry.info, state="running")
            self.update(entry, info)
            self._parts.auditor.note(run_id, "opened", {"door": entry.place.needs_door})
            self._parts.observers.run_started(info)

    def update(self, entry: Entry, info: RunInfo) -> None:
        """Replace what is known about a live run, and write it down."""
        self._parts.registry.replace(replace(entry, info=info))
        self.write(info)

    def write(self, info: RunInfo) -> None:
        """Write a run's record down, if the disk lets us."""
        try:
            self._parts.store.write(info)
        except UNWRITABLE as failure:  # a full disk must neither end a run nor keep one from ending
            log.warning("a run's record could not be written", extra={"run_id": info.run_id, "problem": str(failure)})

    async def finish(self, run_id: str, state: Literal["stopped", "lost"], exit_code: int | None) -> RunInfo:
        """Close a run's way out, collect its last records and write its end down; a second call returns the first's.

        Raises RunNotFound when it is over and its record cannot be read.
        """
        self._parts.worker.drop(run_id)
        with contextlib.suppress(DaemonError):
            await self._parts.worker.barrier()  # its last records come before the answer
        entry = self._parts.registry.remove(run_id)
        if entry is None:
            return self._parts.store.read(run_id)
        info = replace(entry.info, state=state, ended_at=now(), exit_code=exit_code)
        self._parts.records.close(run_id)
        self._parts.auditor.ended(info)
        self.write(info)
        self._parts.observers.run_stopped(info, NO_EXIT_CODE if exit_code is None else exit_code)
        log.info("run ended", extra={"run_id": run_id, "state": state, "exit_code": exit_code})
        return info

    async def lose(self, run_id: str) -> None:
        """End a run as lost, if it is not over yet, whatever became of its record: for the top of a task."""
        with contextlib.suppress(RunNotFound):
            await self.finish(run_id, "lost", None)

    async def calm(self) -> None:
        """Wait a little until no gate is on its way: one that finds nobody at its door gives up."""
        deadline = time.monotonic() + CALM_S
        while self._is_gate_coming() and time.monotonic() < deadline:  # noqa: ASYNC110 # told by many
            await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """Follow no run any more, and end none: another daemon takes them over."""
        self._is_leaving = True
        watches = tuple(self._tasks.values())
        for watch in watches:
            watch.cancel()
        if watches:
            await asyncio.wait(watches)

    def gone(self, run_id: str) -> None:
        """Take it that a run's sandbox does not exist any more: it is over, and what it left is removed."""
        if (entry := self._parts.registry.get(run_id)) is not None:
            self.cancel(run_id)
            self._group.create_task(self._lost(entry.info), name=f"gone {run_id}")

    async def lose_all(self) -> None:
        """End every live run as lost, and follow none any more."""
        for entry in self._parts.registry:
            await self.lose(entry.run_id)
        for run_id in tuple(self._tasks):
            self.cancel(run_id)

    def _is_gate_coming(self) -> bool:
        return any(entry.place.needs_door and not entry.place.cookie for entry in self._parts.registry)

    async def _watch(self, run_id: str, door: Door | None) -> None:
        """Follow one run until it is over, however that happens."""
        try:
            code = await (self._follow_process(run_id) if door is None else self._follow_door(run_id, door))
            self._parts.worker.drop(run_id)
            if code is None:
                await asyncio.sleep(LINGER_S)
            info = await self.finish(run_id, "lost" if code is None else "stopped", code)
            if code is not None:
                await asyncio.sleep(LINGER_S)
            await self._reap(info)
        except Exception:  # the top of a run's task: one run's trouble must not end the daemon
            log.exception("a run's watch failed", extra={"run_id": run_id})
            await self.lose(run_id)

    async def _lost(self, info: RunInfo) -> None:
        try:
            await self._reap(await self.finish(info.run_id, "lost", None))
        except Exception:  # the top of a task: what cannot be removed now must not end the daemon
            log.exception("a lost run could not be reaped", extra={"run_id": info.run_id})

    def _forget(self, run_id: str, door: Door | None, watch: asyncio.Task[None]) -> None:
        del watch
        self._tasks.pop(run_id, None)
        self._told.pop(run_id, None)
        if door is not None and self._is_leaving:
            door.leave()
        elif door is not None:
            door.close()

    async def _follow_door(self, run_id: str, door: Door) -> int | None:
        names = self._parts.store.read_names(run_id)
        try:
            async with self._in_time(run_id):
                await door.admit(names)
        except TimeoutError:
            log.warning("nobody came to a run's door", extra={"run_id": run_id})
            return None
        except DaemonError as failure:
            log.warning("a door could not be taken", extra={"run_id": run_id, "problem": failure.problem})
            return None
        self.opened(run_id)
        with contextlib.suppress(DaemonError):  # logged there; a full disk does not keep an admitted run from starting
            await self._parts.ledger.settled()  # the next daemon knows by it which namespace the gate is in
        door.open()
        return await door.exit_code()

    @contextlib.asynccontextmanager
    async def _in_time(self, run_id: str) -> AsyncIterator[None]:
        """Bound the wait for a run's sandbox: no longer than its launcher lives, where we can see that."""
        entry = self._parts.registry.get(run_id)
        async with asyncio.timeout(GRACE_S) as limit:
            if entry is None or not entry.place.launcher or not entry.place.began:
                yield
                return
            cutting = self._group.create_task(_cut_short(limit, entry.place), name=f"launcher of {run_id}")
            try:
                yield
            finally:
                cutting.cancel()

    async def _follow_process(self, run_id: str) -> int | None:
        try:
            async with self._in_time(run_id):
                await self._told[run_id].wait()
        except TimeoutError:
            log.warning("a run's sandbox never came", extra={"run_id": run_id})
            return None
        entry = self._parts.registry.get(run_id)
        if entry is not None:
            await process_end(entry.place.launcher or entry.info.container_id, entry.place.began)
        return None

    async def _reap(self, info: RunInfo) -> None:
        async with asyncio.timeout(REAP_TIMEOUT_S):
            await self._parts.reaper.reap(info.runtime, info.run_id)
        remove_files(self._parts.home, info.run_id)


async def _cut_short(limit: asyncio.Timeout, place: Place) -> None:
    await process_end(place.launcher, place.began)
    limit.reschedule(asyncio.get_running_loop().time())
