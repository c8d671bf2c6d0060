"""Looks after exchanges that should be over soon: one timer for all of them, however many begin and end.

begin ─▶ a set ─▶ end, mostly at once            still there after PATIENCE_S ─▶ wake(), and a task takes it over
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

PATIENCE_S = 0.25  # far above what most answers take, far below the shortest limit


class Watched(Protocol):
    """Something under way since `started` (time.monotonic)."""

    started: float

    def wake(self) -> None:
        """Called when it takes long."""
        ...


class Watch:
    """The set, and its timer while there is something in it."""

    def __init__(self) -> None:
        self._live: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, one: Watched) -> None:
        """Look after one from now on."""
        self._live.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._look)

    def end(self, one: Watched) -> None:
        """Look after it no more."""
        self._live.discard(one)

    def close(self) -> None:
        """Forget all of them."""
        self._live.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        oldest = time.monotonic() - PATIENCE_S
        for one in [each for each in self._live if each.started <= oldest]:
            self._live.discard(one)
            one.wake()
        if self._live:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._look)
