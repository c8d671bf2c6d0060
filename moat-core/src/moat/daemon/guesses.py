"""Entries of the audit about requests without a run's token, or with a wrong one: an attack that guesses is seen there.

    Guessed ─▶ the first: entered ─▶ what comes meanwhile: counted ─▶ 1 s, 2 s, 4 s … an hour: entered ─▶ …
                                                                       └ nothing came in one: from the beginning

So somebody who guesses is in the log within seconds, and one who does it all day makes some forty entries of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from moat.audit.canonical import plain
from moat.proxy.guessed import Guess, Guessed

KIND = "guessed"
FIRST_S, LONGEST_S = 1.0, 3_600.0
MAX_SHOWN = 32  # peers told apart in one entry


class Timer(Protocol):
    """What was to be called later."""

    def cancel(self) -> None:
        """Call it no more."""
        ...


def _later(seconds: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, callback)


class GuessLog:
    """Used by one event loop. enter: takes the facts of an entry. later: has something called after so many seconds."""

    def __init__(
        self,
        enter: Callable[[Mapping[str, object]], None],
        later: Callable[[float, Callable[[], None]], Timer] = _later,
    ) -> None:
        self._enter = enter
        self._later = later
        self._pause_s = FIRST_S
        self._waiting: dict[tuple[str, str], Guess] = {}
        self._more = 0
        self._pause: Timer | None = None

    def take(self, message: Guessed) -> None:
        """Take what the worker has counted."""
        self._more += message.more
        for each in message.guesses:
            self._add(each)
        if self._pause is None:
            self._tell()
            self._rest()

    def close(self) -> None:
        """Enter what waits."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._tell()

    def _add(self, guess: Guess) -> None:
        key = guess.address, guess.run_id
        known = self._waiting.get(key)
        if known is None and len(self._waiting) >= MAX_SHOWN:
            self._more += guess.wrong + guess.missing
        elif known is None:
            self._waiting[key] = guess
        else:
            counts = (known.wrong + guess.wrong, known.missing + guess.missing)
            self._waiting[key] = Guess(*key, *counts, known.first_at, guess.last_at)

    def _rest(self) -> None:
        self._pause = self._later(self._pause_s, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if self._tell():
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
            self._rest()
        else:
            self._pause_s = FIRST_S

    def _tell(self) -> bool:
        """Enter what waits; return whether anything did."""
        if not self._waiting:
            return False
        told = [_told(guess) for guess in self._waiting.values()]
        self._enter({"from": told} | ({"more": self._more} if self._more else {}))
        self._waiting, self._more = {}, 0
        return True


def _told(guess: Guess) -> dict[str, object]:
    """Return one peer's as it is entered."""
    run = {"run": plain(guess.run_id)} if guess.run_id else {}
    counts = {"wrong": guess.wrong, "missing": guess.missing}
    return {
        "address": plain(guess.address),
        **run,
        **counts,
        "first": plain(guess.first_at),
        "last": plain(guess.last_at),
    }
