from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from moat_provider_aws.process import TOO_LONG
from moat_provider_aws.role import Role
from moat_provider_aws.sessions import REMEMBERED, Sessions
from moat_provider_aws.sts import Keys, NoSession

ROLE = Role("arn:aws:iam::123456789012:role/agent")
OTHER = Role("arn:aws:iam::123456789012:role/other")
LASTS = timedelta(minutes=15)
RENEWED_BEFORE = timedelta(minutes=5)


class Clock:
    """A time that the test moves, and sessions that last from then on. opened: one entry for each."""

    def __init__(self) -> None:
        self.time = datetime(2031, 1, 1, tzinfo=UTC)
        self.opened: list[tuple[Role, str]] = []
        self.failures, self.code = 0, "AccessDenied"
        self.may_open = threading.Event()
        self.may_open.set()

    def now(self) -> datetime:
        return self.time

    def open(self, role: Role, run_id: str) -> Keys:
        self.opened.append((role, run_id))
        assert self.may_open.wait(20)
        if self.failures:
            self.failures -= 1
            raise NoSession("no", "", self.code, is_final=True)
        return Keys(f"ASIA{len(self.opened)}", "s3cr3t", "s3cr3t", self.time + LASTS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock.open, clock.now)


async def test_a_session_is_kept_until_shortly_before_its_end(clock: Clock, sessions: Sessions) -> None:
    first = await sessions.keys(ROLE, "run_1")
    clock.time += LASTS - RENEWED_BEFORE - timedelta(seconds=1)
    again = await sessions.keys(ROLE, "run_1")
    clock.time += timedelta(seconds=1)
    renewed = await sessions.keys(ROLE, "run_1")

    assert first is again
    assert renewed.expires_at == clock.time + LASTS
    assert len(clock.opened) == 2


async def test_no_two_runs_and_no_two_roles_share_one(clock: Clock, sessions: Sessions) -> None:
    asked = [(ROLE, "run_1"), (ROLE, "run_2"), (OTHER, "run_1")]
    found = {(await sessions.keys(*each)).access_key_id for each in asked}

    assert len(found) == 3
    assert clock.opened == asked


async def test_many_who_ask_at_once_open_one(clock: Clock, sessions: Sessions) -> None:
    clock.may_open.clear()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sessions.keys(ROLE, "run_1")) for _ in range(10)]
        await asyncio.sleep(0)  # all of them have asked by then
        clock.may_open.set()

    assert len({id(task.result()) for task in tasks}) == 1
    assert len(clock.opened) == 1


async def test_a_failure_is_not_kept(clock: Clock, sessions: Sessions) -> None:
    clock.failures = 1
    with pytest.raises(NoSession):
        await sessions.keys(ROLE, "run_1")

    assert (await sessions.keys(ROLE, "run_1")).access_key_id == "ASIA2"


async def test_a_question_that_was_given_up_on_was_not_asked_in_vain(clock: Clock, sessions: Sessions) -> None:
    clock.may_open.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(sessions.keys(ROLE, "run_1"))
        while not clock.opened:  # noqa: ASYNC110 # a thread's doing: there is no event to wait for
            await asyncio.sleep(0.01)
        task.cancel()
    clock.may_open.set()
    await asyncio.get_running_loop().shutdown_default_executor()

    assert (await sessions.keys(ROLE, "run_1")).access_key_id == "ASIA1"
    assert len(clock.opened) == 1


async def test_who_waits_for_long_is_told_of_which_profile_and_opens_no_second(clock: Clock) -> None:
    sessions, role = Sessions(clock.open, clock.now, wait_s=0.05), Role("", profile="dev")
    clock.may_open.clear()
    try:
        for _ in range(3):
            with pytest.raises(NoSession, match="the AWS profile dev has given no credentials yet") as caught:
                await sessions.keys(role, "run_1")
    finally:
        clock.may_open.set()
    await asyncio.get_running_loop().shutdown_default_executor()

    assert not caught.value.is_final
    assert caught.value.hint == "run: aws sts get-caller-identity --profile dev"
    assert (await sessions.keys(role, "run_1")).access_key_id == "ASIA1"
    assert len(clock.opened) == 1


async def test_a_process_that_hung_is_told_for_a_while_and_then_tried_again(clock: Clock, sessions: Sessions) -> None:
    clock.failures, clock.code = 1, TOO_LONG
    for _ in range(2):
        with pytest.raises(NoSession):
            await sessions.keys(ROLE, "run_1")
    opened = len(clock.opened)
    clock.time += REMEMBERED

    assert opened == 1
    assert (await sessions.keys(ROLE, "run_1")).access_key_id == "ASIA2"


async def test_what_has_ended_is_forgotten(clock: Clock, sessions: Sessions) -> None:
    for number in range(5):
        await sessions.keys(ROLE, f"run_{number}")
    clock.time += LASTS
    await sessions.keys(ROLE, "run_9")

    assert len(sessions) == 1
