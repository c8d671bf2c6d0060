"""When may the daemon leave? After a while without runs. Pure but for `forever`; the clock is given.

A registration at the last moment is never lost: the decision and `leave` are one step of the loop, and a request that
came before it keeps the daemon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Idle:
    """Counts the time without anything to do. limit_s: 0 means for ever."""

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._since = clock()

    def is_over(self, *, is_busy: bool) -> bool:
        """Take whether there is something to do now; return whether there was nothing for long enough."""
        now = self._clock()
        if is_busy or now < self._since:  # a clock that was set back: count from here
            self._since = now
        return self.limit_s > 0 and not is_busy and now - self._since >= self.limit_s

    async def forever(self, is_busy: Callable[[], bool], leave: Callable[[], None]) -> None:
        """Look every second, and leave when the time has come."""
        while not self.is_over(is_busy=is_busy()):  # noqa: ASYNC110 # time is what is waited for
            await asyncio.sleep(min(LOOK_EVERY_S, self.limit_s or LOOK_EVERY_S))
        log.info("nothing to do: the daemon leaves", extra={"idle_s": self.limit_s})
        leave()
