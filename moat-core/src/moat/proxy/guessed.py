"""Who showed no token, or a wrong one, where one is needed: counts on their way from the worker to the daemon. No I/O.

Never a token, nor a part or a digest of one: where from, at whose listener, how many, from when to when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TOLD = 64  # peers told apart in one message; who comes from ever new addresses is a number beyond that
_MAX_CHARS = 64  # of an address, an id and a time


@dataclass(frozen=True, slots=True)
class Guess:
    """One peer's. run_id: of the run whose listener it was, "" for the one of all. first_at, last_at: ISO 8601, UTC."""

    address: str
    run_id: str
    wrong: int
    missing: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Guessed:
    """What came since the last time. more: how many requests of peers that are not told apart."""

    guesses: tuple[Guess, ...]
    more: int = 0


def guessed_from_wire(wire: Mapping[str, Any]) -> Guessed:
    """Return what the worker says. Raises TypeError, KeyError, ValueError."""
    guesses, more = wire["guesses"], wire["more"]
    if not isinstance(guesses, list) or len(guesses) > MAX_TOLD:
        raise TypeError
    return Guessed(tuple(map(_guess, guesses)), _count(more))


def _guess(wire: Mapping[str, Any]) -> Guess:
    texts = [wire[name] for name in ("address", "run_id", "first_at", "last_at")]
    if any(not isinstance(text, str) or len(text) > _MAX_CHARS for text in texts):
        raise TypeError
    address, run_id, first_at, last_at = texts
    return Guess(address, run_id, _count(wire["wrong"]), _count(wire["missing"]), first_at, last_at)


def _count(number: object) -> int:
    if type(number) is not int or not 0 <= number < 2**53:
        raise TypeError
    return number
