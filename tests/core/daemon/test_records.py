from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.runs import ExchangeRecord
from moat.daemon import records as module
from moat.daemon.records import Records
from moat.daemon.registry import Entry, Registry
from moat.paths import Home, private_folder
from moat.proxy.counts import Counts
from moat.proxy.messages import Exchanges
from moat.proxy.record import line_of
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore

from core.daemon.making import OTHER_ID, RUN_ID, Orchard, a_context, an_info, some_records


def an_exchange(run_id: str = RUN_ID, outcome: str = "forwarded") -> ExchangeRecord:
    return ExchangeRecord(run_id, "now", "connect", "GET", "https", "api.example.com", 443, "/", 200, outcome)


def a_report(run_id: str = RUN_ID, outcome: str = "forwarded") -> Exchanges:
    return reported(an_exchange(run_id, outcome))


def reported(*exchanges: ExchangeRecord) -> Exchanges:
    counts = Counts()
    for each in exchanges:
        counts.record(each)
    return Exchanges(exchanges[0].run_id, counts, "".join(f"{line_of(each)}\n" for each in exchanges).encode())


def some(home: Home) -> tuple[Records, Registry, Orchard]:
    registry, orchard = Registry(), Orchard()
    registry.publish(Entry(a_context(), an_info()))
    return some_records(home, registry, orchard), registry, orchard


class Denials:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def denied(self, run_id: str, authority: str, why: str) -> None:
        self.seen.append((run_id, authority, why))


def test_the_audit_is_told_of_denials_and_of_nothing_else(home: Home) -> None:
    records, _, _ = some(home)
    records.denials = denials = Denials()
    records.exchanges(reported(*(an_exchange(outcome=each) for each in ("forwarded", "denied", "failed"))))
    records.exchanges(a_report())
    records.exchanges(a_report(OTHER_ID, "denied"))  # of no live run

    assert denials.seen == [(RUN_ID, "https://api.example.com", "")]


def test_an_exchange_is_counted_written_and_told(home: Home) -> None:
    records, registry, orchard = some(home)
    for outcome in ("forwarded", "denied", "failed"):
        records.exchanges(a_report(outcome=outcome))

    records.close(RUN_ID)

    entry = registry.get(RUN_ID)
    assert entry is not None
    assert (entry.info.requests, entry.info.denied) == (3, 1)
    assert records.tally.outcomes == {"forwarded": 1, "denied": 1, "failed": 1}
    assert records.lost == 0
    written = list(read_exchanges(RunStore(home).network(RUN_ID)))
    assert [each.outcome for each in written] == ["forwarded", "denied", "failed"]
    assert orchard.seen == [("exchange", RUN_ID)] * 3


@pytest.mark.parametrize("run_id", [OTHER_ID, "", "../../etc"])
def test_a_report_of_no_live_run_opens_no_folder(home: Home, run_id: str) -> None:
    records, _, orchard = some(home)
    records.exchanges(a_report(run_id))
    records.named(run_id, "api.example.com", "127.107.0.1")
    records.flush()

    assert not home.root.exists()
    assert orchard.seen == []


def test_names_are_kept_beside_those_given_before(home: Home) -> None:
    store = RunStore(home)
    store.write_names(RUN_ID, {"a.example.com": "127.107.0.1"})
    records, _, _ = some(home)

    records.named(RUN_ID, "b.example.com", "127.107.0.2")
    records.flush()

    assert store.read_names(RUN_ID) == {"a.example.com": "127.107.0.1", "b.example.com": "127.107.0.2"}


def test_names_that_cannot_be_written_are_logged(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    records, _, _ = some(home)
    home.root.mkdir(mode=0o700)
    home.runs.mkdir(mode=0o700)
    Path(home.run(RUN_ID)).write_text("in the way")
    records.named(RUN_ID, "b.example.com", "127.107.0.2")

    records.flush()

    assert "names could not be written" in caplog.text


def test_a_folder_that_others_may_write_loses_names_and_exchanges_and_nothing_else(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    records, _, _ = some(home)
    private_folder(home.run(RUN_ID)).chmod(0o770)
    records.exchanges(a_report())
    records.named(RUN_ID, "b.example.com", "127.107.0.2")

    records.flush()

    assert {"names could not be written", "exchanges could not be written"} <= set(caplog.messages)


async def test_counters_are_written_down_now_and_then(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY_S", 0.0)
    records, registry, _ = some(home)
    told = asyncio.Event()
    registry.on_change = told.set
    records.exchanges(a_report())

    async with asyncio.TaskGroup() as group:
        flushing = group.create_task(records.flush_forever())
        await told.wait()
        flushing.cancel()


def test_an_answer_of_401_is_told_whether_anybody_watches_or_not(home: Home) -> None:
    records, _, orchard = some(home)
    orchard.watches_exchanges = False
    records.exchanges(a_report())
    assert orchard.seen == []

    records.exchanges(reported(replace(an_exchange(), status=401)))

    assert orchard.seen == [("exchange", RUN_ID)]
