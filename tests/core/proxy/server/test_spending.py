from __future__ import annotations

import asyncio
from functools import partial

import pytest
from moat.api.http import Authority, RequestHead
from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.flow import Passage
from moat.proxy.messages import Uses
from moat.proxy.refusal import Refusal
from moat.proxy.server.pool import Key
from moat.proxy.server.spending import Spending
from support.worker import OTHER_RUN, RUN

API = Authority("https", "api.example.com", 443)
PASSAGE = Passage(API, RequestHead("GET", API, "/"), ("example",))
KEY = Key(RUN, API, ("example",))


class Desk:
    """The daemon's end. says: what it answers at once; None for nothing."""

    def __init__(self, says: str | None = "", *, answer_s: float = 0.05, gather_s: float = 0.0) -> None:
        self.says = says
        self.sent: list[Spends | Uses] = []
        self.spending = Spending(self.take, self.take, answer_s=answer_s, gather_s=gather_s)

    @property
    def asked(self) -> list[Spends]:
        return [message for message in self.sent if isinstance(message, Spends)]

    def take(self, message: Spends | Uses) -> None:
        self.sent.append(message)
        if isinstance(message, Spends) and self.says is not None:
            self.spending.entered(Entered(message.id, (self.says,) * len(message.uses)))


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
        Spends(1, (Spend(RUN, ("example",), "https://api.example.com", "connect", one.number),)),
        Spends(2, (Spend(RUN, ("example",), "https://api.example.com", "connect", two.number),)),
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
    desk = Desk(None, answer_s=30)
    tunnel = desk.spending.tunnel()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tunnel.spend(RUN, PASSAGE, "connect")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()  # who asked goes away: the others have its answer
        await asyncio.sleep(0)
        assert len(desk.sent) == 1
        desk.spending.entered(Entered(desk.asked[0].id))
        desk.spending.entered(Entered(99))  # nobody asked
    desk.spending.flush()

    assert len(desk.asked) == 1
    assert desk.sent[-1] == Uses(RUN, (("example", "https://api.example.com", 3),))


async def test_one_use_at_a_time_is_asked_at_once_and_those_that_come_together_are_one_question() -> None:
    desk = Desk(None, answer_s=30, gather_s=0.01)
    tunnels = [desk.spending.tunnel() for _ in range(9)]
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(tunnels[number].spend(RUN, PASSAGE, "connect"))
            await asyncio.sleep(0)
            assert len(desk.asked) == 1, number  # the first; the others come while it is entered
        async with asyncio.timeout(30):
            while len(desk.asked) < 2:  # noqa: ASYNC110 # a timer's doing
                await asyncio.sleep(0.001)
        first, rest = desk.asked
        desk.spending.entered(Entered(rest.id))
        desk.spending.entered(Entered(first.id))
    desk.says = ""
    for tunnel in tunnels[5:8]:  # the first of these is gathered for, and was alone
        await tunnel.spend(RUN, PASSAGE, "connect")

    assert [len(each.uses) for each in desk.asked] == [1, 4, 1, 1, 1]
    assert [use.tunnel for each in desk.asked for use in each.uses] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("last", ["asks", "asks for something without grants", "ends"])
async def test_when_all_tunnels_have_come_nobody_waits_any_more(last: str) -> None:
    desk = Desk(None, answer_s=30, gather_s=30)
    tunnels = [desk.spending.tunnel() for _ in range(4)]
    told: list[str] = []
    for tunnel in tunnels[:3]:
        tunnel.ask(KEY, "connect", told.append)
    assert [len(each.uses) for each in desk.asked] == [1]
    if last == "asks":
        tunnels[3].ask(KEY, "connect", told.append)
    elif last == "ends":
        tunnels[3].came()
    else:
        await tunnels[3].spend_at(Key(RUN, API, ()), "connect")

    assert [len(each.uses) for each in desk.asked] == [1, 3 if last == "asks" else 2]
    for each in desk.asked:
        desk.spending.entered(Entered(each.id))
    assert told == [""] * (4 if last == "asks" else 3)


async def test_of_uses_that_are_asked_together_each_has_its_own_answer() -> None:
    desk = Desk(None, answer_s=30, gather_s=0.01)
    told: list[tuple[int, str]] = []
    tunnels = [desk.spending.tunnel() for _ in range(4)]
    for number in range(3):
        tunnels[number].ask(KEY, "connect", partial(lambda number, problem: told.append((number, problem)), number))
    async with asyncio.timeout(30):
        while len(desk.asked) < 2:  # noqa: ASYNC110 # a timer's doing
            await asyncio.sleep(0.001)
    desk.spending.entered(Entered(desk.asked[1].id, ("", "the run is over")))
    desk.spending.entered(Entered(desk.asked[0].id))

    assert told == [(1, ""), (2, "the run is over"), (0, "")]
