"""Requests without a run's token, or with a wrong one, counted by peer and told to the daemon, for the audit.

407 ─▶ counted ─▶ FLUSH_S at most ─▶ Guessed ─▶ daemon          a flood costs an addition each, and one message a second
 └ the first of a connection, without a token: waits for what comes next; the right token there and it was none
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from moat.proxy.guessed import MAX_TOLD, Guess, Guessed

FLUSH_S = 1.0
_Key = tuple[str, str]


class Guesses:
    """The counters of a worker. send: to the daemon."""

    def __init__(self, send: Callable[[Guessed], None]) -> None:
        self._send = send
        self._known: dict[_Key, Guess] = {}
        self._more = 0
        self._pause: asyncio.TimerHandle | None = None

    def count(self, address: str, run_id: str, *, is_wrong: bool) -> None:
        """Count one. run_id: of the run whose listener it came to, "" for that of all. is_wrong: not just missing."""
        known = self._known.get((address, run_id))
        if known is None and len(self._known) >= MAX_TOLD:
            self._more += 1
        else:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            known = known or Guess(address, run_id, 0, 0, at, at)
            counts = (known.wrong + is_wrong, known.missing + (not is_wrong))
            self._known[address, run_id] = Guess(address, run_id, *counts, known.first_at, at)
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Tell what was counted."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._known:
            message = Guessed(tuple(self._known.values()), self._more)
            self._known, self._more = {}, 0
            self._send(message)


class Challenge:
    """What one connection was asked for. Clients like git show a token only then: their first request is no guess."""

    __slots__ = ("_guesses", "_unmet", "_was_made")

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses
        self._was_made = False
        self._unmet: _Key | None = None

    def make(self, address: str, run_id: str, *, is_wrong: bool) -> None:
        """Count a request that is answered 407, as `Guesses.count` does; the first, with no token shown, later."""
        self.drop()
        if is_wrong or self._was_made:
            self._guesses.count(address, run_id, is_wrong=is_wrong)
        else:
            self._unmet = address, run_id
        self._was_made = True

    def meet(self) -> None:
        """Take the right token, which was shown on this connection."""
        self._unmet = None

    def drop(self) -> None:
        """Count what was asked for and not shown: the connection is over, or shows another that is wrong."""
        if self._unmet is not None:
            self._guesses.count(*self._unmet, is_wrong=False)
            self._unmet = None
