from __future__ import annotations

import asyncio

import pytest
from moat.api.http import Authority, RequestHead
from moat.proxy.flow import Passage
from moat.proxy.messages import Noted, Spend, Uses
from moat.proxy.refusal import Refusal
from moat.proxy.server.pool import Key
from moat.proxy.server.spending import Spending
from support.worker import OTHER_RUN, RUN

API = Authority("https", "api.example.com", 443)
PASSAGE = Passage(API, RequestHead("GET", API, "/"), ("example",))
KEY = Key(RUN, API, ("example",))


class Desk:
    """The daemon's end. says: what it answers at once; None for nothing."""

    def __init__(self, says: str | None = "") -> None:
        self.says = says
        self.sent: list[Spend | Uses] = []
        self.spending = Spending(self.take, answer_s=0.05)

    def take(self, message: Spend | Uses) -> None:
        self.sent.append(message)
        if isinstance(message, Spend) and self.says is not None:
            self.spending.noted(Noted(message.id, self.says))


async def test_the_first_use_in_each_tunnel_is_asked_and_further_ones_are_counted() -> None:
    desk = Desk()
    one, two = desk.spending.tunnel(), desk.spending.tunnel()
    for tunnel in (one, one, one, two):
        await tunnel.spend(RUN, PASSAGE, "connect")
    use = one.known(KEY)
    assert use is not None
    use.count += 1  # as the short way does
    desk.spending.flush()
    desk.spending.flush()

    assert desk.sent == [
        Spend(1, RUN, ("example",), "https://api.example.com", "connect", one.number),
        Spend(2, RUN, ("example",), "https://api.example.com", "connect", two.number),
        Uses(RUN, (("example", "https://api.example.com", 3),)),
    ]


async def test_what_was_counted_is_told_by_itself() -> None:
    desk = Desk()
    tunnel = desk.spending.tunnel()
    for _ in range(2):
        await tunnel.spend(RUN, PASSAGE, "connect")
    async with asyncio.timeout(30):
        while len(desk.sent) < 2:  # noqa: ASYNC110 # a timer's doing
            await asyncio.sleep(0.01)

    assert isinstance(desk.sent[-1], Uses)


async def test_another_grant_authority_or_run_is_another_first_use() -> None:
    desk = Desk()
    tunnel = desk.spending.tunnel()
    elsewhere = Authority("https", "api.example.com", 8443)
    for run_id, authority, grants in (
        (RUN, API, ("example",)),
        (RUN, API, ("other",)),
        (RUN, elsewhere, ("example",)),
        (OTHER_RUN, API, ("example",)),
    ):
        await tunnel.spend(run_id, Passage(authority, RequestHead("GET", authority, "/"), grants), "connect")

    assert len(desk.sent) == 4


async def test_a_use_that_was_entered_ahead_is_not_counted_twice() -> None:
    desk = Desk()
    tunnel = desk.spending.tunnel()
    use = await tunnel.enter(KEY, "connect")
    tunnel.count(use)
    desk.spending.flush()
    assert len(desk.sent) == 1
    tunnel.count(use)
    desk.spending.flush()

    assert desk.sent[-1] == Uses(RUN, (("example", "https://api.example.com", 1),))


async def test_what_spends_nothing_asks_nobody() -> None:
    desk = Desk(None)
    tunnel = desk.spending.tunnel()
    await tunnel.spend(RUN, Passage(API, RequestHead("GET", API, "/")), "connect")
    key = Key(RUN, API, ())
    await tunnel.spend_at(key, "connect")
    assert tunnel.known(key) is None
    desk.spending.flush()

    assert desk.sent == []


@pytest.mark.parametrize(("says", "why"), [("no space left", "no space left"), (None, "did not happen in")])
async def test_a_use_that_is_not_entered_is_refused_and_asked_again_the_next_time(says: str | None, why: str) -> None:
    desk = Desk(says)
    tunnel = desk.spending.tunnel()
    for _ in range(2):
        with pytest.raises(Refusal, match=why) as refused:
            await tunnel.spend(RUN, PASSAGE, "connect")
        assert (refused.value.status, refused.value.kind) == (503, "audit")
    desk.says = ""
    await tunnel.spend(RUN, PASSAGE, "connect")

    assert len(desk.sent) == 3


async def test_many_streams_at_once_are_one_first_use() -> None:
    desk = Desk(None)
    tunnel = desk.spending.tunnel()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tunnel.spend(RUN, PASSAGE, "connect")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(desk.sent) == 1
        tasks[0].cancel()  # the first goes away: the next asks
        await asyncio.sleep(0)
        while len(desk.sent) < 2:  # noqa: ASYNC110 # tasks are woken one after the other
            await asyncio.sleep(0)
        assert isinstance(desk.sent[1], Spend)
        desk.spending.noted(Noted(desk.sent[1].id))
        desk.spending.noted(Noted(99))  # nobody asked
    desk.spending.flush()

    assert len([message for message in desk.sent if isinstance(message, Spend)]) == 2
    assert desk.sent[-1] == Uses(RUN, (("example", "https://api.example.com", 3),))
