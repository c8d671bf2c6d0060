from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from moat.api.errors import SandboxFailed
from moat.runs.interrupt import Interrupts

from core.runs.fakes import FakeSandbox

Size = tuple[int, int] | None


async def supervised(interrupts: Interrupts, sandbox: FakeSandbox, then: Callable[[], Awaitable[None]]) -> int:
    with interrupts.watching():
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(interrupts.supervise(sandbox))
            await sandbox.waited.wait()
            await then()
        return waiting.result()


async def test_the_first_signal_is_forwarded_and_the_command_decides() -> None:
    sandbox = FakeSandbox([], dies_of=(signal.SIGINT,))

    async def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert await supervised(Interrupts(lambda: None), sandbox, press) == 130
    assert sandbox.told == [f"signal {signal.SIGINT}"]


async def test_a_second_signal_kills() -> None:
    sandbox = FakeSandbox([], dies_of=(signal.SIGKILL,))

    async def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await sandbox.signalled.get()
        os.kill(os.getpid(), signal.SIGINT)

    assert await supervised(Interrupts(lambda: None), sandbox, press_twice) == 137


async def test_a_command_that_ignores_the_signal_is_killed_after_the_grace() -> None:
    sandbox = FakeSandbox([], dies_of=(signal.SIGKILL,))

    async def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert await supervised(Interrupts(lambda: None, grace_s=0.01), sandbox, terminate) == 137
    assert sandbox.told == [f"signal {signal.SIGTERM}", f"signal {signal.SIGKILL}"]


@pytest.mark.parametrize(("size", "told"), [((50, 132), ["resize 50 132"]), (None, [])], ids=["a terminal", "none"])
async def test_a_resized_window_is_told_where_there_is_a_terminal(size: Size, told: list[str]) -> None:
    asked = asyncio.Event()
    sandbox = FakeSandbox([])

    def resize() -> Size:
        asked.set()
        return size

    async def drag() -> None:
        os.kill(os.getpid(), signal.SIGWINCH)
        await asked.wait()
        sandbox.ended.set_result(0)

    assert await supervised(Interrupts(resize), sandbox, drag) == 0
    assert sandbox.told == told


async def test_a_lost_gate_is_raised_as_itself() -> None:
    sandbox = FakeSandbox([])
    sandbox.ended.set_exception(SandboxFailed("lost"))

    with pytest.raises(SandboxFailed, match="lost"):
        await Interrupts(lambda: None).supervise(sandbox)


async def test_what_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(lambda: None).watching():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_before_the_command_a_signal_cancels_once() -> None:
    interrupts = Interrupts(lambda: None)
    cancelled = 0

    async def starting() -> None:
        nonlocal cancelled
        with interrupts.watching():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                interrupts.take(signal.SIGINT)  # while it is being undone
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(starting())
        await asyncio.sleep(0)
        interrupts.take(signal.SIGTERM)

    assert cancelled == 1
    assert interrupts.number == signal.SIGTERM
