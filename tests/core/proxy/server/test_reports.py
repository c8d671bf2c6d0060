from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.counts import Counts
from moat.proxy.forwarded import lines_of, packed
from moat.proxy.messages import Exchanges, Pong, decode
from moat.proxy.record import line_of, line_with
from moat.proxy.server import reports as module
from moat.proxy.server.reports import Reports


@dataclass
class Told:
    """Reports, and the daemon's end of their channel."""

    reports: Reports
    daemon: FrameChannel

    async def next(self) -> object:
        async with asyncio.timeout(30):
            frame = await self.daemon.receive()
        assert frame is not None
        return decode(frame[0])


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    ours, theirs = socket.socketpair()
    worker, daemon = FrameChannel(ours), FrameChannel(theirs)
    yield Told(Reports(worker), daemon)
    worker.close()
    daemon.close()


def a_record(path: str) -> ExchangeRecord:
    return ExchangeRecord(
        "run_000000000001", "now", "connect", "GET", "https", "a.example", 443, path, 200, "forwarded"
    )


def told_of(*paths: str) -> Exchanges:
    counts = Counts()
    for path in paths:
        counts.record(a_record(path))
    lines = "".join(f"{line_of(a_record(path))}\n" for path in paths).encode()
    return Exchanges("run_000000000001", counts, lines)


PLAIN = line_with('{"path":"/plain"', 200, 5, 7, 1)


def without_ids(lines: bytes) -> list[bytes]:
    return [re.sub(rb"req_[0-9a-f]{16}", b"req_", line) for line in lines.splitlines()]


async def test_the_first_exchange_after_a_silence_is_told_at_once(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    told.reports.exchange(a_record("/first"))

    assert await told.next() == told_of("/first")


async def test_what_follows_is_told_together(told: Told) -> None:
    for path in ("/first", "/second", "/third"):
        told.reports.exchange(a_record(path))

    assert await told.next() == told_of("/first")
    assert await told.next() == told_of("/second", "/third")


async def test_a_full_batch_does_not_wait(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    monkeypatch.setattr(module, "BATCH_CHARS", len(line_of(a_record("/second"))) + 2)
    for path in ("/first", "/second", "/third"):
        told.reports.exchange(a_record(path))

    assert await told.next() == told_of("/first")
    assert await told.next() == told_of("/second", "/third")


async def test_a_pong_comes_after_every_exchange_before_it(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    told.reports.exchange(a_record("/first"))
    told.reports.exchange(a_record("/second"))
    told.reports.send(Pong(7))

    answers = [await told.next() for _ in range(3)]
    assert answers == [told_of("/first"), told_of("/second"), Pong(7)]


async def test_denials_are_counted_and_each_run_has_its_own_batch(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    other = replace(a_record("/other"), run_id="run_000000000002")
    for record in (a_record("/first"), replace(a_record("/no"), outcome="denied"), other):
        told.reports.exchange(record)
    told.reports.flush()

    answers = [await told.next() for _ in range(3)]
    assert [
        (each.run_id[-1], each.counts.requests, each.counts.denied) for each in answers if isinstance(each, Exchanges)
    ] == [
        ("1", 1, 0),
        ("1", 1, 1),
        ("2", 1, 0),
    ]


async def test_long_lines_do_not_wait_until_a_frame_is_too_long(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    monkeypatch.setattr(module, "BATCH_CHARS", 500)
    for path in ("/first", "/" + "x" * 500, "/third"):
        told.reports.exchange(a_record(path))

    assert await told.next() == told_of("/first")
    assert await told.next() == told_of("/" + "x" * 500)


async def test_what_plain_exchanges_have_in_common_is_said_once(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    told.reports.exchange(a_record("/first"))
    for duration_ms in (20.0, 30.0):
        told.reports.forwarded("run_000000000001", PLAIN, 1.25, duration_ms, 1.5)
    told.reports.flush()

    await told.next()
    frame = await told.daemon.receive()
    assert frame is not None
    assert frame[0]["tail"] == packed(1.25, 20.0, 1.5) + packed(1.25, 30.0, 1.5)
    plain = decode(frame[0])
    assert isinstance(plain, Exchanges)
    assert plain.lines == lines_of([PLAIN] * 2, frame[0]["number"], frame[0]["tail"])
    assert (plain.counts.requests, plain.counts.statuses) == (2, {200: 2})
    assert (plain.counts.request_bytes, plain.counts.response_bytes, plain.counts.scrubbed) == (10, 14, 2)


async def test_lines_stand_in_the_order_of_their_ends_whichever_way_they_went(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    told.reports.exchange(a_record("/first"))
    told.reports.forwarded("run_000000000001", PLAIN, 1.25, 20.0, 1.5)
    told.reports.exchange(a_record("/second"))
    lines = [PLAIN, *(line_with(beginning, 401, 1, 0, 0) for beginning in ("{a", "{b", "{a"))]
    for line in lines:
        told.reports.forwarded("run_000000000001", line, 1.25, 20.0, 1.5)
    told.reports.flush()

    await told.next()
    mixed = await told.next()
    assert isinstance(mixed, Exchanges)
    times = packed(1.25, 20.0, 1.5)
    expected = [lines_of([PLAIN], 1, times), f"{line_of(a_record('/second'))}\n".encode()]
    expected.append(lines_of(lines, 2, 4 * times))
    assert without_ids(mixed.lines) == without_ids(b"".join(expected))
    ids = re.findall(rb"req_[0-9a-f]{16}", mixed.lines)
    assert len(set(ids)) == 5
    assert (mixed.counts.requests, mixed.counts.request_bytes, mixed.counts.statuses[401]) == (6, 13, 3)


async def test_long_beginnings_do_not_wait_until_a_frame_is_too_long(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    monkeypatch.setattr(module, "BATCH_CHARS", 500)
    line = line_with("x" * 100, 200, 0, 0, 0)  # 250 with the rest
    told.reports.exchange(a_record("/first"))
    for _ in range(3):
        told.reports.forwarded("run_000000000001", line, 1.25, 20.0, 1.5)

    await told.next()
    full = await told.next()
    assert isinstance(full, Exchanges)
    assert full.counts.requests == 2


async def test_plain_exchanges_of_several_runs_go_to_their_own(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 3600)
    told.reports.exchange(a_record("/first"))
    lines = {f"run_00000000000{number}": line_with(f'{{"run":{number}', 200, 0, number, 0) for number in (1, 2)}
    for number in range(4):
        for run_id, line in lines.items():
            told.reports.forwarded(run_id, line, 1.25, float(number), 1.5)
    told.reports.flush()
    told.reports.forwarded("run_000000000002", lines["run_000000000002"], 1.25, 9.0, 1.5)
    told.reports.flush()

    await told.next()
    answers = [await told.next() for _ in range(3)]
    found = {
        (each.run_id, *(json.loads(line)["run"] for line in each.lines.splitlines()))
        for each in answers
        if isinstance(each, Exchanges)
    }
    assert found == {
        ("run_000000000001", 1, 1, 1, 1),
        ("run_000000000002", 2, 2, 2, 2),
        ("run_000000000002", 2),
    }
