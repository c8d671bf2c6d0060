from __future__ import annotations

import asyncio

import pytest
from moat.proxy.server import waits as module
from moat.proxy.server.waits import FOREVER, Waits, waits_of

from core.proxy.server.pairs import until


class One:
    """A wait until a moment; ended: when it was found to be late."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.looks = 0
        self.ended = 0.0

    def look(self, now: float) -> float:
        self.looks += 1
        if now < self.until:
            return self.until
        self.ended = now
        return FOREVER


async def test_each_wait_ends_when_it_is_late_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPACING_S", 0.001)
    loop = asyncio.get_running_loop()
    waits, begun = Waits(loop), loop.time()
    ones = [One(begun + each) for each in (0.03, 0.01, 0.02, 60)]
    for one in ones:
        waits.begin(one, one.until)

    await until(lambda: all(one.ended for one in ones[:3]))

    assert all(one.ended >= one.until for one in ones[:3])
    assert [one in waits for one in ones] == [False, False, False, True]
    assert not ones[3].ended


async def test_what_has_ended_is_not_looked_at_and_a_look_comes_for_all_at_once() -> None:
    loop = asyncio.get_running_loop()
    waits, now = Waits(loop), loop.time()
    ended, first, later = One(now), One(now + 0.01), One(now + 0.02)
    for one in (ended, first, later):
        waits.begin(one, one.until)
    waits.end(ended)

    await until(lambda: bool(later.ended))

    assert ended.looks == 0
    assert later.looks <= 2
    assert later.ended >= first.ended


async def test_streams_of_one_loop_share_their_waits() -> None:
    assert waits_of(asyncio.get_running_loop()) is waits_of(asyncio.get_running_loop())
