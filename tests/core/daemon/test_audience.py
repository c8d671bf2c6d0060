from __future__ import annotations

from moat.api.runs import ExchangeRecord
from moat.daemon.audience import Audience

from core.daemon.making import RUN_ID, Orchard, an_info

EXCHANGE = ExchangeRecord(RUN_ID, "", "connect", "GET", "https", "a.example", 443, "/", 200, "forwarded")


class Quiet(Orchard):
    watches_exchanges = False


def test_everybody_is_told_those_added_later_too() -> None:
    one, other = Orchard(), Orchard()
    audience = Audience(one)
    audience.add(other)

    audience.run_started(an_info())
    audience.exchange_done(RUN_ID, EXCHANGE)
    audience.run_stopped(an_info(), 3)

    wanted = [("started", RUN_ID), ("exchange", RUN_ID), ("stopped", RUN_ID, 3)]
    assert one.seen == other.seen == wanted


def test_exchanges_are_watched_if_anybody_does() -> None:
    assert not Audience(Quiet()).watches_exchanges
    assert Audience(Quiet(), Orchard()).watches_exchanges
