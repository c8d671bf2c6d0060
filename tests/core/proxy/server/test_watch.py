from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from moat.proxy.server import watch as module
from moat.proxy.server.watch import Watch

from core.proxy.server.pairs import until


@dataclass(eq=False)
class Slow:
    started: float = 0.0
    woken: int = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)


async def test_what_takes_long_is_woken_once() -> None:
    watch, slow = Watch(), Slow(time.monotonic())
    watch.begin(slow)
    await until(lambda: slow.woken > 0)
    later = Slow(time.monotonic())
    watch.begin(later)
    await until(lambda: later.woken > 0)

    assert slow.woken == 1


async def test_what_is_over_in_time_is_left_alone() -> None:
    watch, quick, slow = Watch(), Slow(), Slow(time.monotonic())
    watch.begin(quick)
    watch.begin(slow)
    watch.end(quick)
    await until(lambda: slow.woken > 0)

    assert quick.woken == 0


async def test_a_closed_watch_wakes_nobody() -> None:
    watch, other = Watch(), Watch()
    forgotten, slow = Slow(), Slow(time.monotonic())
    watch.begin(forgotten)
    watch.close()
    other.begin(slow)
    await until(lambda: slow.woken > 0)

    assert forgotten.woken == 0
