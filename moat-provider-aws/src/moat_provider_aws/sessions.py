"""The sessions that runs use: one for each run and role, kept in memory until shortly before it ends.

a run's question ─▶ keys ─ kept, and good for a while? ─▶ those
                       └─ no ─▶ STS, in a thread, once however many ask ─▶ kept ─▶ those
                                 └─ it takes long ─▶ that is told; who asks again waits for the same thread
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from moat_provider_aws.process import TOO_LONG
from moat_provider_aws.role import Role
from moat_provider_aws.sts import Keys, NoSession, session_for

RENEWED_BEFORE = timedelta(minutes=5)
REMEMBERED = timedelta(seconds=30)  # that a process hung: it is told to who asks next, and not started for each
WAIT_S = 8.0  # the daemon gives a question up after ten

Open = Callable[[Role, str], Keys]


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Slot:
    """opening: what is under way. failure: what is still to be told, until then."""

    keys: Keys | None = None
    opening: asyncio.Future[Keys] | None = None
    failure: NoSession | None = None
    until: datetime | None = None

    def opened(self, opening: asyncio.Future[Keys]) -> None:
        """Let the next question open another; whoever waited has been told."""
        self.opening = None
        if not opening.cancelled():
            opening.exception()


class Sessions:
    """Used by one event loop. open_session: asks STS, and blocks. wait_s: how long a question waits for it."""

    def __init__(
        self, open_session: Open = session_for, now: Callable[[], datetime] = utc_now, wait_s: float = WAIT_S
    ) -> None:
        self._open = open_session
        self._now = now
        self._wait_s = wait_s
        self._slots: dict[tuple[str, Role], _Slot] = {}

    def __len__(self) -> int:
        """How many runs and roles are remembered."""
        return len(self._slots)

    async def keys(self, role: Role, run_id: str) -> Keys:
        """Return the credentials of the run's session, a new one where the last ends soon. Raises NoSession."""
        self._forget()
        slot = self._slots.setdefault((run_id, role), _Slot())
        if slot.keys is not None and slot.keys.expires_at - self._now() > RENEWED_BEFORE:
            return slot.keys
        if slot.failure is not None and slot.until is not None and self._now() < slot.until:
            raise slot.failure
        if slot.opening is None:
            slot.opening = asyncio.get_running_loop().run_in_executor(None, self._renew, slot, role, run_id)
            slot.opening.add_done_callback(slot.opened)
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(slot.opening)
        except TimeoutError:
            raise _not_yet(role) from None

    def _renew(self, slot: _Slot, role: Role, run_id: str) -> Keys:
        # Kept by the thread, so that a question that was given up on has not been asked in vain.
        try:
            slot.keys = keys = self._open(role, run_id)
        except NoSession as failure:
            is_kept = failure.code == TOO_LONG
            slot.failure, slot.until = (failure, self._now() + REMEMBERED) if is_kept else (None, None)
            raise
        return keys

    def _forget(self) -> None:
        """Drop what has ended: nobody says when a run is over."""
        now = self._now()
        ended = [key for key, slot in self._slots.items() if slot.keys is not None and slot.keys.expires_at <= now]
        for key in ended:
            del self._slots[key]


def _not_yet(role: Role) -> NoSession:
    whose = f"the AWS profile {role.profile}" if role.profile else "your AWS profile"
    typed = f" --profile {shlex.quote(role.profile)}" if role.profile else ""
    hint = f"run: aws sts get-caller-identity{typed}"
    return NoSession(f"{whose} has given no credentials yet", hint, "NoCredentialsYet", is_final=False)
