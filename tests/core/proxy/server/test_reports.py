from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.messages import Exchanges, Pong, decode
from moat.proxy.record import line_of
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


def told_of(*paths: str, denied: int = 0) -> Exchanges:
    lines = "".join(f"{line_of(a_record(path))}\n" for path in paths).encode()
    return Exchanges("run_000000000001", len(paths), denied, lines)


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
    monkeypatch.setattr(module, "BATCH", 2)
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
    assert [(each.run_id[-1], each.count, each.denied) for each in answers if isinstance(each, Exchanges)] == [
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
