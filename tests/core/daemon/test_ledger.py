from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from moat.api.errors import DaemonError, UsageError
from moat.daemon import ledger as module
from moat.daemon.ledger import DEBOUNCE_S, RETRY_S, Ledger

from core.daemon.clocks import Inline, TestClock

TURNS = 20  # of the loop: more than anything takes that needs no time


class Disk:
    """A file and how often it was written; full makes writing fail."""

    def __init__(self) -> None:
        self.value = 0
        self.held = b"0"
        self.writes = 0
        self.is_full = False

    def render(self) -> bytes:
        return str(self.value).encode()

    def write(self, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "no space left on device")
        self.held = data
        self.writes += 1


@asynccontextmanager
async def kept(disk: Disk) -> AsyncIterator[Ledger]:
    async with asyncio.TaskGroup() as group:
        ledger = Ledger(disk.render, disk.write)
        group.create_task(ledger.keep())
        try:
            yield ledger
        finally:
            await ledger.close()


async def test_who_waits_finds_the_change_on_disk() -> None:
    disk = Disk()
    async with kept(disk) as ledger:
        disk.value = 7
        ledger.changed()
        await ledger.settled()

        assert disk.held == b"7"
        await ledger.settled()  # nothing changed: nothing to wait for


async def test_what_nobody_waits_for_is_written_a_little_later_and_at_the_end() -> None:
    disk = Disk()
    async with kept(disk) as ledger:
        for disk.value in range(1, 100):
            ledger.changed()
    assert disk.held == b"99"
    assert disk.writes < 10


async def test_a_hundred_who_wait_at_once_cost_a_few_writes() -> None:
    disk = Disk()

    async def change(ledger: Ledger, number: int) -> None:
        disk.value = number
        ledger.changed()
        await ledger.settled()

    async with kept(disk) as ledger, asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(change(ledger, number))
    assert disk.writes < 20


async def test_a_full_disk_is_told_to_who_waits_and_written_when_there_is_room_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    disk = Disk()
    async with kept(disk) as ledger:
        disk.is_full, disk.value = True, 7
        ledger.changed()
        with pytest.raises(DaemonError, match="no space left"):
            await ledger.settled()
        assert not ledger.is_settled

        disk.is_full = False
        async with asyncio.timeout(30):
            while not ledger.is_settled:  # noqa: ASYNC110 # its own retry
                await asyncio.sleep(0.01)
        assert disk.held == b"7"


async def test_a_folder_that_others_may_write_is_like_a_full_disk() -> None:
    refused = ["it can be written by others"]

    def write(data: bytes) -> None:
        del data
        if refused:
            raise UsageError(refused.pop())

    async with asyncio.TaskGroup() as group:
        ledger = Ledger(lambda: b"7", write)
        keeping = group.create_task(ledger.keep())
        ledger.changed()
        with pytest.raises(DaemonError, match="written by others"):
            await ledger.settled()

        await ledger.settled()  # asked again
        assert not keeping.done()
        await ledger.close()


async def test_a_disk_that_stays_full_does_not_keep_the_end_from_coming() -> None:
    disk = Disk()
    async with kept(disk) as ledger:
        disk.is_full, disk.value = True, 7
        ledger.changed()
    assert disk.held == b"0"


class Keeping(RuleBasedStateMachine):
    """However changes, waits, full disks and time follow each other: what is kept is told, in time, and not before."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.clock = TestClock()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Inline())
        self.ledger = self.loop.run_until_complete(self._made())
        self.keeping = self.loop.create_task(self.ledger.keep())
        self._turn()

    async def _made(self) -> Ledger:
        return Ledger(self.disk.render, self.disk.write, self.clock.wait)

    def _turn(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(TURNS):
            self.loop.run_until_complete(asyncio.sleep(0))

    def _pass(self, seconds: float) -> None:
        self.clock.passes(seconds)
        self._turn()

    @rule(value=st.integers(0, 1000))
    def change(self, value: int) -> None:
        writes = self.disk.writes
        self.disk.value = value
        self.ledger.changed()
        self._turn()
        assert self.disk.writes == writes  # nobody waits, and no time has passed

    @rule(seconds=st.sampled_from([0.0, DEBOUNCE_S / 2, DEBOUNCE_S, RETRY_S]))
    def pass_time(self, seconds: float) -> None:
        self._pass(seconds)

    @rule()
    def pass_enough_time(self) -> None:
        for seconds in (DEBOUNCE_S, RETRY_S, DEBOUNCE_S):
            self._pass(seconds)
        assert self.ledger.is_settled or self.disk.is_full

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        self.disk.is_full = full

    @rule()
    def wait(self) -> None:
        now = self.clock.now()
        try:
            self.loop.run_until_complete(self.ledger.settled())
        except DaemonError:
            assert self.disk.is_full
        else:
            assert int(self.disk.held) == self.disk.value
        assert self.clock.now() == now
        self._turn()

    @invariant()
    @precondition(lambda self: hasattr(self, "ledger"))
    def what_is_settled_is_on_disk(self) -> None:
        assert not self.keeping.done()
        if self.ledger.is_settled:
            assert int(self.disk.held) == self.disk.value

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.disk.is_full = False
            self.loop.run_until_complete(self.ledger.close())
            self.loop.run_until_complete(self.keeping)
            assert int(self.disk.held) == self.disk.value
            self.loop.close()


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
