"""Signs the audit's heads in batches: all chains that went on get one counter, and the keyring remembers it.

key there? ─▶ is the log the one that is remembered? ─ no ─▶ an entry says so, for ever ─▶ heads signed ─▶ kept
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AbstractContextManager
from dataclasses import replace

from moat.api.errors import AuditUnwritable, MoatError
from moat.audit.chain import GAP, INSTALLATION
from moat.audit.heads import Anchor, Head, sign
from moat.audit.log import AuditLog, Note
from moat.daemon.audit_key import AuditKeys, Secret
from moat.daemon.registration import now

SEAL_S = 5.0  # what a kill may leave unsigned
REMEMBER_S = 60.0  # between two writes to the keyring
FIRST_DELAY_S, MAX_DELAY_S = 30.0, 600.0  # each attempt may ask the user to unlock a keyring

log = logging.getLogger(__name__)


class Seal:
    """The signer of one log. Blocking. secret: as it was found when the daemon started."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self._is_checked = False

    def seal(self, log: AuditLog, at: str) -> bool:
        """Sign what is not signed yet, and return whether there was anything. Raises AuditUnwritable.

        What is to be remembered from then on is in `secret`.
        """
        self._check(log, at)
        ahead = log.unsealed()
        if not ahead:
            return False
        counter = max(log.counter(), self.secret.anchor.counter) + 1
        tips = log.tips()
        live = {name: tip for name, tip in tips.items() if name != INSTALLATION}
        heads = [Head(name, tip, counter, at) for name, tip in ahead.items() if name != INSTALLATION]
        heads.append(Head(INSTALLATION, tips[INSTALLATION], counter, at, live))
        log.put_heads([sign(self.secret.seed, head) for head in heads])
        self.secret = replace(self.secret, anchor=Anchor(counter, tips[INSTALLATION]))
        return True

    def _check(self, log: AuditLog, at: str) -> None:
        """Have the log say so if it is not the one that is remembered: nothing makes that good again."""
        anchor = self.secret.anchor
        if self._is_checked:
            return
        is_known = not anchor.counter or log.hash_at(INSTALLATION, anchor.tip.seq) == anchor.tip.hash
        if not is_known or log.counter() < anchor.counter:
            log.append([Note(INSTALLATION, at, GAP, {"counter": anchor.counter, "seq": anchor.tip.seq})])
        self._is_checked = True


class Signing:
    """Has the log signed every SEAL_S, and the keyring remember it every REMEMBER_S. Used by one event loop."""

    def __init__(self, keys: AuditKeys, first_delay_s: float = FIRST_DELAY_S) -> None:
        self._keys = keys
        self._first_delay_s = first_delay_s
        self._seal: Seal | None = None
        self._remembered = Anchor()
        self._sealed_at = self._remembered_at = -REMEMBER_S

    async def sign(self, log_: AuditLog, in_log: AbstractContextManager[object], *, at_once: bool = False) -> None:
        """Sign what is not signed yet, if it is time to. in_log: a thread's turn at the log."""
        is_due = at_once or time.monotonic() - self._sealed_at >= SEAL_S
        if self._seal is None or not is_due or not log_.unsealed():
            return
        try:
            await asyncio.to_thread(_sealed, self._seal, log_, in_log)
        except AuditUnwritable as failure:
            log.warning("the audit is not signed", extra={"problem": failure.problem})
        else:
            self._sealed_at = time.monotonic()

    async def keep_key(self) -> None:
        """Get the key, again and again with growing pauses, and have what is signed remembered; until cancelled."""
        delay_s = self._first_delay_s
        while not await self._got_key():
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_DELAY_S)
        while True:
            await asyncio.sleep(1)
            if time.monotonic() - self._remembered_at >= REMEMBER_S:
                await self.remember()

    async def remember(self) -> None:
        """Have the latest counter kept beside the key."""
        if self._seal is None or self._seal.secret.anchor == self._remembered:
            return
        secret = self._seal.secret
        self._remembered_at = time.monotonic()
        try:
            await asyncio.to_thread(self._keys.remember, secret)
        except (MoatError, OSError) as failure:
            log.warning("the audit's last head is not remembered", extra={"problem": str(failure)})
        else:
            self._remembered = secret.anchor

    async def _got_key(self) -> bool:
        try:
            secret = await asyncio.to_thread(self._keys.obtain)
        except (MoatError, OSError) as failure:
            log.warning("the audit cannot be signed yet", extra={"problem": str(failure)})
            return False
        self._seal, self._remembered = Seal(secret), secret.anchor
        return True


def _sealed(seal: Seal, log_: AuditLog, in_log: AbstractContextManager[object]) -> None:
    with in_log:
        seal.seal(log_, now())
