from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from moat.audit.canonical import canonical
from moat.daemon.guesses import MAX_SHOWN, GuessLog
from moat.proxy.guessed import Guess, Guessed


def a_guess(address: str = "127.0.0.1", wrong: int = 1, missing: int = 0, at: str = "1") -> Guess:
    return Guess(address, "", wrong, missing, at, at)


class Desk:
    """A log of guesses and what it entered."""

    def __init__(self) -> None:
        self.entered: list[Mapping[str, Any]] = []
        self.pauses: list[float] = []
        self._callback: Callable[[], None] = self.cancel
        self.log = GuessLog(self.entered.append, self._later)

    def wait(self) -> None:
        """Let the pause end."""
        self._callback()

    def cancel(self) -> None:
        self._callback = lambda: None

    def _later(self, seconds: float, callback: Callable[[], None]) -> Desk:
        self.pauses.append(seconds)
        self._callback = callback
        return self

    def take(self, *guesses: Guess, more: int = 0) -> None:
        self.log.take(Guessed(guesses, more))


def test_the_first_is_entered_at_once_and_others_are_counted_meanwhile() -> None:
    desk = Desk()
    desk.take(a_guess(wrong=3, missing=1))
    for number in range(5):
        desk.take(a_guess(wrong=10, at=str(number)), more=2)
    desk.take(Guess("10.0.0.9", "run_00000000000a", 0, 1, "7", "8"))
    assert desk.entered == [{"from": [{"address": "127.0.0.1", "wrong": 3, "missing": 1, "first": "1", "last": "1"}]}]

    desk.log.close()

    told = {"address": "10.0.0.9", "run": "run_00000000000a", "wrong": 0, "missing": 1, "first": "7", "last": "8"}
    assert desk.entered[1:] == [
        {"from": [{"address": "127.0.0.1", "wrong": 50, "missing": 0, "first": "0", "last": "4"}, told], "more": 10}
    ]
    canonical(desk.entered[1])


def test_who_guesses_on_and_on_is_entered_more_and_more_seldom() -> None:
    desk = Desk()
    desk.take(a_guess())
    for _ in range(14):
        desk.take(a_guess())
        desk.wait()
    assert desk.pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]
    assert len(desk.entered) == 15

    desk.wait()  # nothing came
    desk.take(a_guess())

    assert len(desk.entered) == 16
    assert desk.pauses[15:] == [1]


def test_a_flood_from_everywhere_makes_entries_of_a_bounded_size() -> None:
    desk = Desk()
    desk.take(a_guess())
    for number in range(500):
        desk.take(a_guess(f"10.0.0.{number}", wrong=1, missing=1))
    desk.log.close()

    assert len(desk.entered[1]["from"]) == MAX_SHOWN
    assert desk.entered[1]["more"] == 2 * (500 - MAX_SHOWN)


def test_nothing_is_entered_where_nobody_guessed() -> None:
    desk = Desk()

    desk.log.close()

    assert desk.entered == []


async def test_a_real_pause_ends() -> None:
    told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    log = GuessLog(told.put_nowait)
    for number in (1, 2):
        log.take(Guessed((a_guess(wrong=number),)))
    async with asyncio.timeout(30):
        assert [(await told.get())["from"][0]["wrong"] for _ in range(2)] == [1, 2]
    log.close()
