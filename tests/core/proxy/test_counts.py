from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.runs import ExchangeRecord
from moat.proxy.counts import BUCKETS_S, Counts, from_wire, to_wire
from moat.proxy.record import line_with

RECORD = ExchangeRecord(
    "run_1", "now", "connect", "GET", "https", "a.example", 443, "/", 200, "forwarded",
    request_bytes=5, response_bytes=7, duration_ms=20.0, scrubbed=2,
)  # fmt: skip
SPANS_MS = st.sampled_from([0.0, 4.999, 5.0, 5.001, 300_000.0, 300_000.1]) | st.floats(0, 1e6)


def counted(*records: ExchangeRecord) -> Counts:
    counts = Counts()
    for record in records:
        counts.record(record)
    return counts


@given(st.lists(st.tuples(st.integers(200, 599), st.integers(0, 9), st.integers(0, 9), SPANS_MS, st.integers(0, 2))))
def test_many_at_once_count_like_each_by_itself(forwarded: list[tuple[int, int, int, float, int]]) -> None:
    each = counted(
        *(
            replace(RECORD, status=status, request_bytes=up, response_bytes=down, duration_ms=span, scrubbed=scrubbed)
            for status, up, down, span, scrubbed in forwarded
        )
    )
    lines = Counter(line_with("{", status, up, down, scrubbed) for status, up, down, _, scrubbed in forwarded)

    together = Counts()
    together.forwarded(lines, [span for *_, span, _ in forwarded])

    assert together.seconds == pytest.approx(each.seconds)
    together.seconds = each.seconds
    assert together == each


def test_a_time_belongs_to_the_first_bucket_that_holds_it() -> None:
    counts = counted(*(replace(RECORD, duration_ms=each) for each in (5.0, 5.1, 1e6)))

    assert [counts.buckets[number] for number in (0, 1, len(BUCKETS_S))] == [1, 1, 1]
    assert sum(counts.buckets) == 3


def test_counts_add_up() -> None:
    counts = counted(RECORD)
    counts.add(counted(replace(RECORD, outcome="denied", status=403), RECORD))

    assert (counts.requests, counts.denied, counts.statuses) == (3, 1, {200: 2, 403: 1})
    assert (counts.request_bytes, counts.response_bytes, counts.scrubbed) == (15, 21, 6)
    assert counts.seconds == pytest.approx(0.06)
    assert counts.buckets[2] == 3


def test_counts_survive_the_wire() -> None:
    counts = counted(RECORD, replace(RECORD, outcome="failed", status=0))

    assert from_wire(json.loads(json.dumps(to_wire(counts)))) == counts


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: wire.pop("scrubbed"),
        lambda wire: wire.update(scrubbed=-1),
        lambda wire: wire.update(request_bytes=1.5),
        lambda wire: wire.update(seconds="1"),
        lambda wire: wire.update(buckets=[1]),
        lambda wire: wire["outcomes"].update(anything=1),
        lambda wire: wire["outcomes"].update(denied=True),
        lambda wire: wire["statuses"].update({"1000": 1}),
        lambda wire: wire["statuses"].update({"x": 1}),
    ],
)
def test_what_is_no_count_is_an_error(spoil: Callable[[dict[str, Any]], object]) -> None:
    wire = json.loads(json.dumps(to_wire(counted(RECORD))))
    spoil(wire)

    with pytest.raises((KeyError, TypeError, ValueError)):
        from_wire(wire)
