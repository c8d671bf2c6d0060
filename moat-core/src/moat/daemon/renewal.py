"""Puts what became of a credential into every live run that spends it: new rules, in open tunnels too, or its end.

(profile, grant) ─▶ runs that spend it ─▶ grants resolved again ─▶ context replaced ─▶ worker
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from moat.api.errors import MoatError
from moat.daemon.parts import Parts
from moat.daemon.registry import Entry
from moat.daemon.restore import served, spec_again

ATTEMPTS = 3  # a run may be registered again while its grants are resolved

log = logging.getLogger(__name__)


class Renewal:
    """Used by one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def in_use(self) -> set[tuple[str, str]]:
        """Return profile and name of every grant that a live run spends."""
        return {(entry.info.profile, grant) for entry in self._parts.registry for grant in spent_by(entry)}

    async def renew(self, profile: str, grant: str) -> None:
        """Put a grant's credential, as it is stored now, into every run that spends it."""
        for entry in self._parts.registry:
            if entry.info.profile == profile and grant in spent_by(entry):
                await self._renewed(entry.run_id)

    async def _renewed(self, run_id: str) -> None:
        for _ in range(ATTEMPTS):
            entry = self._parts.registry.get(run_id)
            if entry is None or entry.context.why_closed:
                return  # ended, or still to be resolved for the first time
            try:
                resolved = await asyncio.to_thread(self._parts.grants.resolve, spec_again(entry), entry.extras)
            except MoatError as failure:
                log.warning("a run keeps its credentials", extra={"run_id": run_id, "problem": failure.problem})
                return
            current = self._parts.registry.get(run_id)
            if current is not None and current.context is entry.context:
                context = served(current.context, resolved, is_open=current.context.is_open)
                self._parts.registry.replace(replace(current, context=context))
                self._parts.worker.put(context)
                return


def spent_by(entry: Entry) -> tuple[str, ...]:
    """Return the names of the stored grants that a run spends."""
    return tuple(dict.fromkeys((*entry.info.grants, *entry.extras.grants)))
