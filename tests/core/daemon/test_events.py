from __future__ import annotations

import json

from moat.api.runs import ExchangeRecord
from moat.daemon.events import MAX_LISTENERS, Events, Listener

from core.daemon.making import OTHER_ID, RUN_ID, an_info

EXCHANGE = ExchangeRecord(RUN_ID, "", "connect", "GET", "https", "a.example", 443, "/", 200, "forwarded")


async def kinds(listener: Listener | None) -> list[str]:
    assert listener is not None
    found = []
    while (event := await listener.next(0.01)) is not None:
        found.append(event.kind)
    return found


async def test_every_listener_hears_everything_in_its_order() -> None:
    events = Events()
    with events.listening() as one, events.listening() as other:
        events.run_started(an_info())
        events.exchange_done(RUN_ID, EXCHANGE)
        events.run_stopped(an_info(), 3)

        assert await kinds(one) == await kinds(other) == ["run_started", "exchange", "run_stopped"]


async def test_a_listener_of_one_run_hears_of_it_and_of_what_concerns_all() -> None:
    events = Events()
    with events.listening(RUN_ID) as listener:
        events.run_started(an_info(OTHER_ID))
        events.tell("grant", grant={})
        events.run_started(an_info())

        assert await kinds(listener) == ["grant", "run_started"]


async def test_who_does_not_keep_up_is_dropped_and_told_so_last() -> None:
    events = Events(length=3)
    with events.listening() as slow, events.listening() as quick:
        assert quick is not None
        for number in range(10):
            events.tell("thing", number=number)
            assert await quick.next(1) is not None

        assert await kinds(slow) == ["thing", "thing", "thing", "dropped"]
        assert await kinds(quick) == []


async def test_when_the_daemon_leaves_every_stream_ends_those_that_come_later_too() -> None:
    events = Events()
    with events.listening() as before:
        events.tell("thing")
        events.close()
        events.tell("unheard")
        with events.listening() as after:
            assert await kinds(before) == ["thing", "closed"]
            assert await kinds(after) == ["closed"]


async def test_listeners_are_counted_and_forgotten() -> None:
    events = Events()
    assert not events.watches_exchanges
    with events.listening():
        assert events.watches_exchanges
    assert len(events) == 0

    held = [events.listening() for _ in range(MAX_LISTENERS)]
    for each in held:
        each.__enter__()
    with events.listening() as one_more:
        assert one_more is None
    for each in held:
        each.__exit__(None, None, None)
    assert len(events) == 0


async def test_an_event_is_rendered_as_the_standard_says() -> None:
    events = Events()
    with events.listening() as listener:
        assert listener is not None
        events.tell("thing", RUN_ID, text="two\nlines")
        event = await listener.next(1)

    assert event is not None
    number, kind, data, *rest = event.render().decode().split("\n")
    assert (number, kind, rest) == ("id: 1", "event: thing", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"run_id": RUN_ID, "text": "two\nlines"}
