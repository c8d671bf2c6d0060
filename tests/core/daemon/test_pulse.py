from __future__ import annotations

import asyncio
import os

import pytest
from moat.daemon import pulse
from moat.daemon.pulse import MAX_UNKNOWN, Pulses, Rounds
from moat.daemon.registry import Entry, Registry
from moat.paths import Home

from core.daemon.house import a_house, registered
from core.daemon.making import OTHER_ID, RUN_ID, Orchard, a_context, an_info, until


def test_gone_where_it_was_seen_before_is_over_at_once() -> None:
    pulses = Pulses()

    assert not pulses.is_over(RUN_ID, True, is_vouched=True)
    assert pulses.is_over(RUN_ID, False, is_vouched=True)


def test_an_engine_that_never_knew_the_run_is_not_believed() -> None:
    pulses = Pulses()

    assert not any(pulses.is_over(RUN_ID, False, is_vouched=True) for _ in range(10))
    assert [pulses.is_over(OTHER_ID, False, is_vouched=False) for _ in range(3)] == [False, False, True]


def test_unknown_three_times_in_a_row_is_over_and_one_good_answer_starts_again() -> None:
    pulses = Pulses()

    answers = [None, None, True, None, None, None]
    over = [pulses.is_over(RUN_ID, answer, is_vouched=False) for answer in answers]

    assert over == [False, False, False, False, False, True]
    assert MAX_UNKNOWN == 3


def test_unknown_is_fine_as_long_as_the_gate_is_there() -> None:
    pulses = Pulses()

    assert not any(pulses.is_over(RUN_ID, None, is_vouched=True) for _ in range(10))


def test_what_was_unknown_of_one_run_says_nothing_about_another() -> None:
    pulses = Pulses()
    for run_id in (RUN_ID, RUN_ID, OTHER_ID):
        pulses.is_over(run_id, None, is_vouched=False)

    assert not pulses.is_over(OTHER_ID, None, is_vouched=False)
    pulses.keep_only({OTHER_ID})
    assert not pulses.is_over(RUN_ID, None, is_vouched=False)


async def test_only_runs_whose_sandbox_was_there_are_asked_about() -> None:
    registry, orchard, gone = Registry(), Orchard(), list[str]()
    registry.publish(Entry(a_context(), an_info(state="starting", container_id="c")))
    registry.publish(Entry(a_context(OTHER_ID, "u" * 64), an_info(OTHER_ID, container_id="c")))
    rounds = Rounds(registry, orchard, lambda _: True, gone.append)
    await rounds.once()
    orchard.pulses = {RUN_ID: False, OTHER_ID: False}

    await rounds.once()

    assert gone == [OTHER_ID]


async def test_a_runtime_that_fails_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Orchard):
        async def pulse(self, runtime: str, run_id: str) -> bool | None:
            raise RuntimeError("the engine's library is broken")

    registry, gone = Registry(), list[str]()
    registry.publish(Entry(a_context(), an_info(container_id="c")))
    rounds = Rounds(registry, Broken(), lambda _: False, gone.append)

    await rounds.once()
    await rounds.once()
    assert gone == []
    await rounds.once()
    assert gone == [RUN_ID]
    assert "could not be asked" in caplog.text


async def test_a_new_daemon_asks_soon_so_that_it_believes_the_runtime_from_then_on() -> None:
    registry, orchard, gone = Registry(), Orchard(), list[str]()
    registry.publish(Entry(a_context(), an_info(container_id="c")))
    rounds = Rounds(registry, orchard, lambda _: True, gone.append)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asking = group.create_task(rounds.forever(every_s=3600, first_s=0))
        await until(lambda: RUN_ID in rounds._pulses._seen)
        asking.cancel()
    orchard.pulses[RUN_ID] = False
    await rounds.once()

    assert gone == [RUN_ID]


async def test_an_engine_that_hangs_costs_a_round_one_wait_and_no_more_questions_than_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging(Orchard):
        asked, most = 0, 0

        async def pulse(self, runtime: str, run_id: str) -> bool | None:
            self.asked += 1
            self.most = max(self.most, self.asked)
            if self.asked == 3:
                everyone.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.asked -= 1
            return None

    monkeypatch.setattr(pulse, "MAX_ASKED", 3)
    monkeypatch.setattr(pulse, "ASK_TIMEOUT_S", 0.05)
    registry, gone, everyone, hanging = Registry(), list[str](), asyncio.Event(), Hanging()
    for number in range(7):
        run_id = f"run_{number:012x}"
        registry.publish(Entry(a_context(run_id, f"{number}" * 64), an_info(run_id, container_id="c")))
    rounds = Rounds(registry, hanging, lambda _: False, gone.append)

    for _ in range(MAX_UNKNOWN):
        await rounds.once()

    assert everyone.is_set()  # asked at the same time
    assert hanging.most == 3
    assert len(gone) == 7


async def test_a_run_whose_process_is_watched_is_not_ended_by_what_is_unknown(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        house.runs.tell_container(made.auth_token, str(os.getpid()))
        house.orchard.pulses[RUN_ID] = None
        for _ in range(5):
            await house.runs.rounds.once()

        assert [run.run_id for run in house.runs.list()] == [RUN_ID]


async def test_a_run_whose_container_is_gone_is_over_and_reaped(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        house.runs.tell_container(made.auth_token, "an-engine-s-id")
        await house.runs.rounds.once()
        house.orchard.pulses[RUN_ID] = False

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            rounds = group.create_task(house.runs.rounds.forever(0.01))
            await until(lambda: ("reaped", "bubblewrap", RUN_ID) in house.orchard.seen)
            rounds.cancel()

        assert house.state() == "lost"
        assert house.runs.list() == []
