"""Gives up an upstream that stops in the middle of an upload: takes nothing of it, and says nothing, for too long.

upload ─ waits for the upstream ─▶ looked at now and then: did anything move?     no, for limit_s ─▶ give_up, once

The loop's one timer for waits looks: most uploads are over before. Slowness is no stall, nor is a client that sends
nothing (that has a limit of its own) or does not take the answer, for which an upstream may well wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from moat.proxy.server.waits import FOREVER, waits_of

_LOOKS = 8  # in limit_s: it is given up an eighth too late at most


@dataclass(eq=False, slots=True)
class Stall:
    """Looks after one upload while it is entered.

    seen: returns something else each time that something has moved. give_up: called once, in a turn of its own.
    is_waiting: whether the upload waits for the upstream just now; set by whoever uploads.
    """

    limit_s: float
    seen: Callable[[], object]
    give_up: Callable[[], None]
    is_waiting: bool = False
    _last: object = None
    _since: float = 0.0

    def __enter__(self) -> Stall:
        loop = asyncio.get_running_loop()
        waits_of(loop).begin(self, loop.time() + self.limit_s / _LOOKS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        waits_of(asyncio.get_running_loop()).end(self)

    def look(self, now: float) -> float:
        """Give up what has not moved for too long. See Waits."""
        seen = self.seen() if self.is_waiting else None
        if seen is None or seen != self._last:
            self._last, self._since = seen, now
        elif now - self._since >= self.limit_s:
            self.give_up()
            return FOREVER
        return now + self.limit_s / _LOOKS
