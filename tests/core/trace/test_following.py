from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from moat.api.runs import ExchangeRecord
from moat.trace.following import Following
from moat.trace.network import Gap, NetworkLog

RECORD = ExchangeRecord(
    "run_0123456789ab", "2026-01-01T00:00:00+00:00", "connect", "GET", "https", "api.example.com", 443, "/user", 200,
    "forwarded",
)  # fmt: skip


class Trace:
    """A trace of which every file holds two exchanges, and who follows it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.log = NetworkLog(limit_bytes=2 * len(line(0)) + 1)
        self.written = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.log.append(self.file, line(self.written))
            self.log.flush()
            self.written += 1


def line(number: int) -> bytes:
    return json.dumps(asdict(replace(RECORD, port=1000 + number))).encode() + b"\n"


def numbers(following: Following) -> list[int | Gap]:
    return [each.port - 1000 if isinstance(each, ExchangeRecord) else each for each in following.added()]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "run" / "network.jsonl")


@contextlib.contextmanager
def following(trace: Trace) -> Iterator[Following]:
    with contextlib.closing(Following(trace.file)) as made:
        yield made


def test_it_begins_with_what_the_latest_file_has_and_goes_on(trace: Trace) -> None:
    trace.write(3)
    with following(trace) as made:
        assert numbers(made) == [2]
        trace.write(1)
        assert numbers(made) == [3]
        assert numbers(made) == []


def test_a_trace_that_is_not_there_yet_is_waited_for(trace: Trace) -> None:
    with following(trace) as made:
        assert numbers(made) == []
        trace.write(1)
        assert numbers(made) == [0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_nothing_is_missed_over_files_that_are_put_aside_between_two_looks(trace: Trace, count: int) -> None:
    trace.write(1)
    with following(trace) as made:
        seen = numbers(made)
        for _ in range(4):
            trace.write(count)
            seen += numbers(made)

    assert seen == list(range(1 + 4 * count))


def test_what_was_written_between_the_look_and_the_moving_is_not_missed(trace: Trace) -> None:
    trace.write(1)
    with following(trace) as made:
        looking = made.added()
        assert isinstance(next(looking), ExchangeRecord)
        rest = made._is_put_aside

        def late() -> bool:  # the first file is read to its end; now it gets one more, and is put aside
            made.__dict__.pop("_is_put_aside")
            trace.write(2)
            return rest()

        made.__dict__["_is_put_aside"] = late

        assert [each.port - 1000 for each in looking if isinstance(each, ExchangeRecord)] == [1, 2]


def test_what_was_dropped_before_it_could_be_seen_is_told(trace: Trace) -> None:
    trace.write(1)
    with following(trace) as made:
        trace.write(20)
        seen = numbers(made)

    (gap,) = (each for each in seen if isinstance(each, Gap))
    assert gap.marker == "dropped"
    shown = [each for each in seen if isinstance(each, int)]
    assert len(shown) + gap.exchanges == 21
    assert seen == [0, 1, gap, *range(2 + gap.exchanges, 21)]


def test_who_looks_too_seldom_is_told_that_something_is_missing(trace: Trace) -> None:
    trace.write(9)
    with following(trace) as made:
        assert numbers(made) == [8]
        trace.write(20)
        seen = numbers(made)

    assert seen == [9, Gap("dropped", 0), *range(24, 29)]


def test_half_a_line_waits_for_its_other_half(trace: Trace) -> None:
    trace.write(1)
    with following(trace) as made:
        assert numbers(made) == [0]
        with trace.file.open("ab") as stream:
            stream.write(line(1)[:20])
        assert numbers(made) == []
        with trace.file.open("ab") as stream:
            stream.write(line(1)[20:])
        assert numbers(made) == [1]


def test_a_trace_that_is_removed_ends_quietly(trace: Trace) -> None:
    trace.write(1)
    with following(trace) as made:
        shutil.rmtree(trace.file.parent)

        assert numbers(made) == [0]
        assert numbers(made) == []
