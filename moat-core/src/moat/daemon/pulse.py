"""Asks the runtimes now and then whether live runs still exist, for what a door cannot tell. `Pulses` decides; pure.

gone, where it was seen before ─▶ over at once      unknown ─▶ three times in a row, and nothing else vouches ─▶ over

An engine that never knew a run is perhaps not the one that holds it: what it says then is unknown, and not gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from moat.daemon.liveness import is_process_id
from moat.daemon.registry import Entry, Registry

ASK_EVERY_S = 30.0
ASK_FIRST_S = 2.0  # soon: a daemon that follows another believes a runtime only after it saw the run there itself
ASK_TIMEOUT_S = 10.0
MAX_UNKNOWN = 3
MAX_ASKED = 32  # at once: an engine that hangs costs a round ASK_TIMEOUT_S for so many runs, not for each

log = logging.getLogger(__name__)


class Source(Protocol):
    """Who can be asked: the runtimes."""

    async def pulse(self, runtime: str, run_id: str) -> bool | None:
        """Return whether a run's sandbox exists; None when that cannot be told now."""
        ...


class Pulses:
    """Which runs were seen, and how often in a row nothing was known of each."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._unknown: dict[str, int] = {}

    def is_over(self, run_id: str, answer: bool | None, *, is_vouched: bool) -> bool:
        """Take an answer about a run; return whether it is over. is_vouched: its gate or its process is there."""
        if answer is False and run_id in self._seen:
            return True
        if answer:
            self._seen.add(run_id)
        if answer or is_vouched:
            self._unknown.pop(run_id, None)
        else:
            self._unknown[run_id] = self._unknown.get(run_id, 0) + 1
        return self._unknown.get(run_id, 0) >= MAX_UNKNOWN

    def keep_only(self, run_ids: set[str]) -> None:
        """Forget every other run."""
        self._seen &= run_ids
        for run_id in self._unknown.keys() - run_ids:
            del self._unknown[run_id]


class Rounds:
    """Goes round all live runs. has_gate: whether a run's door is open. gone: told of each that is over."""

    def __init__(
        self, registry: Registry, source: Source, has_gate: Callable[[str], bool], gone: Callable[[str], None]
    ) -> None:
        self._registry = registry
        self._source = source
        self._has_gate = has_gate
        self._gone = gone
        self._pulses = Pulses()

    async def forever(self, every_s: float = ASK_EVERY_S, first_s: float = ASK_FIRST_S) -> None:
        """Ask soon, and every so often, until cancelled."""
        await asyncio.sleep(min(first_s, every_s))
        while True:
            await self.once()
            await asyncio.sleep(every_s)

    async def once(self) -> None:
        """Ask about every run whose sandbox was there once."""
        room = asyncio.Semaphore(MAX_ASKED)
        async with asyncio.TaskGroup() as group:
            for entry in self._registry:
                group.create_task(self._judge(entry, room))
        self._pulses.keep_only({entry.run_id for entry in self._registry})

    async def _judge(self, entry: Entry, room: asyncio.Semaphore) -> None:
        async with room:
            answer = await self._ask(entry)
        if self._registry.get(entry.run_id) is None:
            return  # it ended meanwhile
        is_vouched = self._has_gate(entry.run_id) or _has_process(entry)
        if self._pulses.is_over(entry.run_id, answer, is_vouched=is_vouched):
            log.warning("a run's sandbox is gone", extra={"run_id": entry.run_id, "is_certain": answer is False})
            self._gone(entry.run_id)

    async def _ask(self, entry: Entry) -> bool | None:
        if entry.info.state != "running" or not entry.info.container_id:
            return True
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await self._source.pulse(entry.info.runtime, entry.run_id)
        except Exception:  # the top of one question: a runtime's trouble tells nothing about its run
            log.exception("a runtime could not be asked", extra={"run_id": entry.run_id})
            return None


def _has_process(entry: Entry) -> bool:
    """Return whether the run ends with a process that is watched anyway."""
    return not entry.place.needs_door and bool(entry.place.launcher or is_process_id(entry.info.container_id))
