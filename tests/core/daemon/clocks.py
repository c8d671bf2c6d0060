"""Time that a test moves: who waits is woken when their time has come, and no earlier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class TestClock:
    """A Clock of refreshing. waiting: the waits under way, by their end, which nobody's setting of the clock moves."""

    __test__ = False

    def __init__(self) -> None:
        self._now = BEGIN
        self._passed = 0.0
        self.waiting: dict[asyncio.Future[None], float] = {}

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    def roll(self) -> float:
        return 0.0

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[done] = self._passed + seconds
        try:
            async with asyncio.TaskGroup() as group:
                nudged = group.create_task(_set_after(event, done))
                await done
                nudged.cancel()
        finally:
            del self.waiting[done]

    def jump(self, seconds: float) -> None:
        """Set the clock, forwards or back. No time passes."""
        self._now += timedelta(seconds=seconds)

    def passes(self, seconds: float) -> None:
        """Let time pass, and wake those whose time has come."""
        self._now += timedelta(seconds=seconds)
        self._passed += seconds
        for done, end in tuple(self.waiting.items()):
            if end <= self._passed and not done.done():
                done.set_result(None)


async def _set_after(event: asyncio.Event, done: asyncio.Future[None]) -> None:
    await event.wait()
    if not done.done():
        done.set_result(None)


class Inline(ThreadPoolExecutor):
    """Does at once what others do in a thread, so that nothing but the test's clock takes time."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as failure:  # noqa: BLE001 # as an executor does: it is the caller's
            done.set_exception(failure)
        return done
