from __future__ import annotations

import asyncio

import pytest
from moat.proxy.guessed import MAX_TOLD, Guessed
from moat.proxy.server import guesses as module
from moat.proxy.server.guesses import Challenge, Guesses


async def test_they_are_counted_by_peer_and_listener() -> None:
    told: list[Guessed] = []
    guesses = Guesses(told.append)
    for is_wrong in (True, True, False):
        guesses.count("127.0.0.1", "", is_wrong=is_wrong)
    guesses.count("127.0.0.1", "run_1", is_wrong=True)
    guesses.count("127.0.0.2", "", is_wrong=False)

    guesses.flush()
    guesses.flush()

    (message,) = told
    seen = [(each.address, each.run_id, each.wrong, each.missing) for each in message.guesses]
    assert seen == [("127.0.0.1", "", 2, 1), ("127.0.0.1", "run_1", 1, 0), ("127.0.0.2", "", 0, 1)]
    assert all(each.first_at <= each.last_at for each in message.guesses)
    assert message.more == 0


async def test_a_flood_from_everywhere_is_bounded() -> None:
    told: list[Guessed] = []
    guesses = Guesses(told.append)
    for number in range(1000):
        guesses.count(f"10.0.{number // 250}.{number % 250}", "", is_wrong=True)
    guesses.flush()

    assert len(told[0].guesses) == MAX_TOLD
    assert told[0].more == 1000 - MAX_TOLD


@pytest.mark.parametrize(
    ("steps", "counted"),
    [
        ("none, right", []),
        ("none, right, right, over", []),
        ("none, over", [(0, 1)]),
        ("none, none, right", [(0, 2)]),
        ("none, wrong, right", [(1, 1)]),
        ("wrong, right", [(1, 0)]),
        ("none, right, none, right", [(0, 1)]),
    ],
)
async def test_only_a_first_request_without_a_token_that_the_right_one_follows_is_no_guess(
    steps: str, counted: list[tuple[int, int]]
) -> None:
    told: list[Guessed] = []
    guesses = Guesses(told.append)
    challenge = Challenge(guesses)
    for step in steps.split(", "):
        match step:
            case "right":
                challenge.meet()
            case "over":
                challenge.drop()
            case _:
                challenge.make("127.0.0.1", "run_1", is_wrong=step == "wrong")
    guesses.flush()

    seen = [(each.wrong, each.missing) for message in told for each in message.guesses]
    assert seen == counted


async def test_they_are_told_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    told: asyncio.Queue[Guessed] = asyncio.Queue()
    guesses = Guesses(told.put_nowait)
    async with asyncio.timeout(30):
        for count in (1, 2):
            for _ in range(count):
                guesses.count("127.0.0.1", "", is_wrong=True)
            assert (await told.get()).guesses[0].wrong == count
