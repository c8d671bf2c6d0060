from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from moat.proxy.server.stall import Stall

LIMIT_S = 0.08


@dataclass
class Watched:
    """What a stall looks at. asked: how often. is_moving: whether it looks otherwise each time."""

    is_moving: bool = False
    is_held_up: bool = False
    asked: int = 0
    given_up: int = 0
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def seen(self) -> object:
        self.asked += 1
        if self.asked == 12:
            self.event.set()
        return None if self.is_held_up else self.asked if self.is_moving else "the same"

    def give_up(self) -> None:
        self.given_up += 1
        self.event.set()

    async def during(self, *, is_waiting: bool = True) -> Watched:
        """Let it look until it gives up, or has looked far longer than the limit."""
        async with asyncio.timeout(30):
            with Stall(LIMIT_S, self.seen, self.give_up, is_waiting):
                await self.event.wait()
        return self


async def test_what_does_not_move_is_given_up_once() -> None:
    watched = await Watched().during()

    assert watched.given_up == 1
    assert watched.asked > 1


async def test_what_moves_or_waits_for_the_client_is_not() -> None:
    assert (await Watched(is_moving=True).during()).given_up == 0
    assert (await Watched(is_held_up=True).during()).given_up == 0


async def test_an_upload_that_waits_for_its_client_is_not_looked_at() -> None:
    watched, clock = Watched(), asyncio.get_running_loop().time
    with Stall(LIMIT_S, watched.seen, watched.give_up) as stall:
        late = clock() + 3 * LIMIT_S
        while clock() < late:  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(0)
        assert (watched.asked, watched.given_up) == (0, 0)
        stall.is_waiting = True
        async with asyncio.timeout(30):
            await watched.event.wait()

    assert watched.given_up == 1


async def test_it_looks_no_more_once_it_is_left() -> None:
    watched = Watched()
    with Stall(LIMIT_S, watched.seen, watched.give_up, is_waiting=True):
        pass
    clock = asyncio.get_running_loop().time
    late = clock() + 3 * LIMIT_S
    while clock() < late:  # noqa: ASYNC110 - a clock has no event
        await asyncio.sleep(0)

    assert watched.asked == 0
