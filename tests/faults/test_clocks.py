"""The clock of the machine is set, forwards and back, by an hour up to ten years, under what asks for the time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from core.daemon.refreshing import HOUR, a_scene
from core.daemon.test_captures import a_desk, a_message
from core.daemon.test_idle import LIMIT_S, Clock
from moat.daemon.idle import Idle

from faults.counts import none_left

pytestmark = pytest.mark.timeout(60)
JUMPS_H = [sign * hours for hours in (1, 24, 24 * 365, 24 * 3650) for sign in (1, -1)]
jumped = pytest.mark.parametrize("hours", JUMPS_H, ids=[f"{each:+} h" for each in JUMPS_H])


@jumped
async def test_a_clock_that_is_set_costs_one_renewal_at_most_delays_none_and_loses_no_token(
    hours: int, times: int
) -> None:
    async with none_left(), a_scene() as scene:
        scene.server.lifetime_s = HOUR * 2
        for _ in range(times):
            asked = len(scene.server.asked)
            await scene.later(HOUR / 4)
            scene.clock.jump(HOUR * hours)
            await scene.later(HOUR)
            assert 1 <= len(scene.server.asked) - asked <= 2  # the interval's, and the one that seemed to be due

            assert scene.state.state == "fresh"  # a token that was lost or spent twice would be revoked
            assert scene.token == f"tok-s3cr3t-{scene.server.issued}"
            assert scene.renewed[-1] == ("", "apple", scene.token)


@jumped
def test_a_clock_that_is_set_takes_no_daemon_from_under_its_runs(hours: int, times: int) -> None:
    clock = Clock()
    idle = Idle(LIMIT_S, clock)
    for _ in range(times):
        clock.now += HOUR * hours
        assert not idle.is_over(is_busy=True)
        clock.now += LIMIT_S - 1
        assert not idle.is_over(is_busy=False)  # and after its last run it stays as long as ever
        clock.now += 1
        assert idle.is_over(is_busy=False)


@jumped
async def test_what_is_captured_is_kept_whatever_the_clock_says(hours: int, times: int) -> None:
    for number in range(times):
        async with none_left(), a_desk() as desk:
            desk.now += timedelta(hours=hours)
            token = f"tok-s3cr3t-{number}"
            answer = await desk.take(a_message(tokens={"access_token": token}, expires_in=3600))

            assert answer.problem == ""
            kept = desk.kept["apple"]
            assert (kept.secret, kept.expires_at) == (token, desk.now + timedelta(hours=1))
