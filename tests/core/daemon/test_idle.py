from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from moat.daemon.idle import Idle

LIMIT_S = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_daemon_without_anything_to_do_for_long_enough_may_leave() -> None:
    clock = Clock()
    idle = Idle(LIMIT_S, clock)

    assert not idle.is_over(is_busy=False)
    clock.now += LIMIT_S - 1
    assert not idle.is_over(is_busy=False)
    clock.now += 1
    assert idle.is_over(is_busy=False)


def test_something_to_do_at_the_last_moment_keeps_it_and_the_time_starts_again() -> None:
    clock = Clock()
    idle = Idle(LIMIT_S, clock)
    clock.now += LIMIT_S

    assert not idle.is_over(is_busy=True)
    clock.now += LIMIT_S - 1
    assert not idle.is_over(is_busy=False)


def test_a_limit_of_nothing_means_for_ever() -> None:
    clock = Clock()
    idle = Idle(0.0, clock)
    clock.now += 1e9

    assert not idle.is_over(is_busy=False)


async def test_leaving_and_the_decision_are_one_step() -> None:
    clock, told = Clock(), []
    idle = Idle(LIMIT_S, clock)
    looked = 0

    def is_busy() -> bool:
        nonlocal looked
        looked += 1
        clock.now += LIMIT_S / 2
        return looked < 3

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        idle_task = group.create_task(idle.forever(is_busy, lambda: told.append(looked)))
        await idle_task
    assert told == [4]  # busy twice, then half the time, then all of it


class Idling(RuleBasedStateMachine):
    """Beside a model that keeps the moment of the last business seen; the clock may jump either way."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.idle = Idle(LIMIT_S, self.clock)
        self.since = self.clock.now

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.floats(0, 4000))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.clock.now -= seconds

    @rule(busy=st.booleans())
    def look(self, busy: bool) -> None:
        over = self.idle.is_over(is_busy=busy)
        if busy or self.clock.now < self.since:
            self.since = self.clock.now
        assert over == (not busy and self.clock.now - self.since >= LIMIT_S)


TestIdling = Idling.TestCase
