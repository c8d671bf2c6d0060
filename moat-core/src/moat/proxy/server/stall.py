"""Gives up an upstream that stops in the middle of an upload: takes nothing of it, and says nothing, for too long.

upload ─ waits for the upstream ─▶ looked at now and then: did anything move?     no, for limit_s ─▶ give_up, once

One timer for a whole upload: most are over before it rings for the first time. Slowness is no stall, nor is a client
that sends nothing (that has a limit of its own) or does not take the answer, for which an upstream may well wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

_LOOKS = 8  # in limit_s: it is given up an eighth too late at most


@dataclass(slots=True)
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
    _timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Stall:
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.limit_s / _LOOKS, self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        seen = self.seen() if self.is_waiting else None
        if seen is None or seen != self._last:
            self._last, self._since = seen, now
        elif now - self._since >= self.limit_s:
            return self.give_up()
        return self._wait()
