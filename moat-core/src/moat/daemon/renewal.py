"""Puts what became of a credential into every live run that spends it: new rules, in open tunnels too, or its end.

resolved ─▶ published ─▶ renewed in between? ─┐
(profile, grant) ─▶ runs that spend it ─▶ grants resolved again ─▶ context replaced ─▶ worker
                              ▲                 └─ store locked ─▶ owed: again after a while, and longer and longer ─┐
                              └──────────────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from moat.api.errors import DaemonError, MoatError, StoreLocked
from moat.daemon import audit_facts
from moat.daemon.grants import Resolved
from moat.daemon.parts import Parts
from moat.daemon.registry import Entry
from moat.daemon.restore import served, spec_again

ATTEMPTS = 3  # a run may be registered again while its grants are resolved
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 60.0  # each attempt may ask the user to unlock a keyring

log = logging.getLogger(__name__)


class Renewal:
    """Used by one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._owed: dict[str, None] = {}  # runs, in the order of their coming
        self._work = asyncio.Event()

    def in_use(self) -> set[tuple[str, str]]:
        """Return profile and name of every grant that a live run spends.

        A run whose grants are still to be resolved spends none: who restores it asks for the store's key, and with a
        locked keyring a refresher beside it would only have the user asked once more.
        """
        entries = (entry for entry in self._parts.registry if not entry.context.why_closed)
        return {(entry.info.profile, grant) for entry in entries for grant in spent_by(entry)}

    async def renew(self, profile: str, grant: str) -> None:
        """Put a grant's credential, as it is stored now, into every run that spends it."""
        await self._renew_all(
            [each.run_id for each in self._parts.registry if each.info.profile == profile and grant in spent_by(each)]
        )

    async def catch_up(self, run_id: str, resolved: Resolved) -> None:
        """Renew a run that was resolved before it could be found here, if a grant of it was renewed in between."""
        if not await asyncio.to_thread(self._parts.grants.is_current, resolved):
            await self._renewed(run_id)
            with contextlib.suppress(DaemonError):  # its successor begins with the new values
                await self._parts.worker.barrier()

    async def owed_forever(self) -> None:
        """Renew the runs that could not be, since the store was locked, with growing pauses, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            delay_s = FIRST_DELAY_S
            while self._owed:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, MAX_DELAY_S)
                owed, self._owed = tuple(self._owed), {}
                try:
                    await self._renew_all(owed)
                except Exception:  # the top of a task: a provider's mistake must not end the daemon
                    log.exception("runs keep their credentials", extra={"run_ids": owed})

    async def _renew_all(self, run_ids: Sequence[str]) -> None:
        for number, run_id in enumerate(run_ids):
            self._owed.pop(run_id, None)
            await self._renewed(run_id)
            if run_id in self._owed:  # one key for all of them: the user is asked once a round
                self._owed |= dict.fromkeys(run_ids[number:])
                return

    async def _renewed(self, run_id: str) -> None:
        for _ in range(ATTEMPTS):
            entry = self._parts.registry.get(run_id)
            if entry is None or entry.context.why_closed:
                return  # ended, or still to be resolved for the first time
            try:
                resolved = await asyncio.to_thread(self._parts.grants.resolve, spec_again(entry), entry.extras)
            except MoatError as failure:
                log.warning("a run keeps its credentials", extra={"run_id": run_id, "problem": failure.problem})
                if isinstance(failure, StoreLocked):
                    self._owed[run_id] = None
                    self._work.set()
                return
            for facts in audit_facts.marks_of(resolved):
                self._parts.auditor.note(run_id, "resolved", facts)
            current = self._parts.registry.get(run_id)
            if current is not None and current.context is entry.context:
                context = served(current.context, resolved, is_open=current.context.is_open)
                self._parts.registry.replace(replace(current, context=context))
                self._parts.worker.put(context)
                return


def spent_by(entry: Entry) -> tuple[str, ...]:
    """Return the names of the stored grants that a run spends."""
    return tuple(dict.fromkeys((*entry.info.grants, *entry.extras.grants)))
