from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from moat.proxy.guessed import MAX_TOLD, Guess, Guessed, guessed_from_wire

GUESS = {
    "address": "127.0.0.1",
    "run_id": "",
    "wrong": 3,
    "missing": 1,
    "first_at": "2026-01-01",
    "last_at": "2026-01-02",
}


def test_what_is_said_is_read_back() -> None:
    said = Guessed((Guess("127.0.0.1", "", 3, 1, "a", "b"), Guess("::1", "run_1", 0, 1, "a", "a")), 9)

    assert guessed_from_wire(json.loads(json.dumps(asdict(said)))) == said


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"guesses": [], "more": -1},
        {"guesses": [], "more": True},
        {"guesses": {}, "more": 0},
        {"guesses": [GUESS] * (MAX_TOLD + 1), "more": 0},
        {"guesses": [{**GUESS, "wrong": "3"}], "more": 0},
        {"guesses": [{**GUESS, "missing": 2**53}], "more": 0},
        {"guesses": [{**GUESS, "address": "x" * 65}], "more": 0},
        {"guesses": [{**GUESS, "last_at": None}], "more": 0},
        {"guesses": [{}], "more": 0},
    ],
)
def test_what_is_none_is_refused(wire: dict[str, object]) -> None:
    with pytest.raises((TypeError, KeyError)):
        guessed_from_wire(wire)
