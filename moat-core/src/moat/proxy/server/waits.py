"""Ends waits that take too long: one timer for all of a loop, since one for each costs more than most waits do.

begin ─▶ a set ─▶ end                  the timer rings for the earliest ─▶ each is looked at, and the timer set anew

The first wait to be late ends in time, those that follow it up to SPACING_S later than they might.
"""

from __future__ import annotations

import asyncio
import math
from functools import lru_cache
from typing import Protocol

FOREVER = math.inf
SPACING_S = 0.1  # between two looks: a look costs a microsecond for ten waits, and the shortest limit is seconds
_LOOPS = 4  # a worker has one; beyond that, a loop merely gets a second timer


class Wait(Protocol):
    """Something that may take too long."""

    def look(self, now: float) -> float:
        """End the wait if it is too late for it; return when to look again, FOREVER for not at all. now: the loop's."""
        ...


class Waits:
    """Those of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._live: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = FOREVER

    def __contains__(self, one: Wait) -> bool:
        """Whether it will be looked at."""
        return one in self._live

    def begin(self, one: Wait, until: float) -> None:
        """Look at one when it is late, until its end, or until it says that there is no need any more."""
        self._live.add(one)
        if until < self._rings:
            self._set(until)

    def end(self, one: Wait) -> None:
        """Look at it no more. The timer is left alone: the next wait will mostly want it."""
        self._live.discard(one)

    def _set(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = until
        self._timer = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        self._timer, self._rings = None, FOREVER
        now, earliest = self._loop.time(), FOREVER
        for one in tuple(self._live):
            again = one.look(now)
            if again == FOREVER:
                self._live.discard(one)
            elif again < earliest:
                earliest = again
        if earliest < self._rings:  # whoever was ended may have begun another wait
            self._set(max(earliest, now + SPACING_S))


@lru_cache(maxsize=_LOOPS)
def waits_of(loop: asyncio.AbstractEventLoop) -> Waits:
    """Return the waits of a loop."""
    return Waits(loop)
