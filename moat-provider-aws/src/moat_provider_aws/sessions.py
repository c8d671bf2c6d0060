"""The sessions that runs use: one for each run and role, kept in memory until shortly before it ends.

a run's question ─▶ keys ─ kept, and good for a while? ─▶ those
                       └─ no ─▶ STS, in a thread, once however many ask ─▶ kept ─▶ those
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from moat_provider_aws.role import Role
from moat_provider_aws.sts import Keys, session_for

RENEWED_BEFORE = timedelta(minutes=5)

Open = Callable[[Role, str], Keys]


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Slot:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    keys: Keys | None = None


class Sessions:
    """Used by one event loop. open_session: asks STS, and blocks."""

    def __init__(self, open_session: Open = session_for, now: Callable[[], datetime] = utc_now) -> None:
        self._open = open_session
        self._now = now
        self._slots: dict[tuple[str, Role], _Slot] = {}

    def __len__(self) -> int:
        """How many runs and roles are remembered."""
        return len(self._slots)

    async def keys(self, role: Role, run_id: str) -> Keys:
        """Return the credentials of the run's session, a new one where the last ends soon. Raises NoSession."""
        self._forget()
        slot = self._slots.setdefault((run_id, role), _Slot())
        async with slot.lock:
            if slot.keys is not None and slot.keys.expires_at - self._now() > RENEWED_BEFORE:
                return slot.keys
            return await asyncio.to_thread(self._renew, slot, role, run_id)

    def _renew(self, slot: _Slot, role: Role, run_id: str) -> Keys:
        # Kept by the thread, so that a question that was given up on has not been asked in vain.
        slot.keys = keys = self._open(role, run_id)
        return keys

    def _forget(self) -> None:
        """Drop what has ended: nobody says when a run is over."""
        now = self._now()
        ended = [key for key, slot in self._slots.items() if slot.keys is not None and slot.keys.expires_at <= now]
        for key in ended:
            del self._slots[key]
