from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from moat.proxy.counts import Counts
from moat.proxy.forwarded import (
    TIMES_BYTES,
    Forwarded,
    count_all,
    forwarded_from_wire,
    forwarded_to_wire,
    lines_of,
    packed,
)
from moat.proxy.record import line_with

LINE = line_with('{"path":"/a%20b%s"', 200, 5, 7, 1)
OTHER = line_with('{"path":"/\u00e9"', 404, 1, 0, 0)
TIMES = packed(1.25, 20.0, 1.5) + packed(1_700_000_000.0, 0.0004, 0.0)
MESSAGE = Forwarded("run_1", LINE, 0xABC, TIMES)


def test_a_line_is_made_of_each() -> None:
    lines = lines_of([LINE, OTHER], 0xABF, TIMES)

    assert lines.endswith(b"}\n")
    first, second = map(json.loads, lines.splitlines())
    assert (first["path"], first["status"], first["id"][-8:]) == ("/a%20b%s", 200, "00000abf")
    assert (first["at"], first["duration_ms"], first["first_byte_ms"]) == ("1970-01-01T00:00:01.250+00:00", 20.0, 1.5)
    assert (second["path"], second["status"], second["id"][-8:]) == ("/é", 404, "00000ac0")
    assert (second["at"], second["duration_ms"]) == ("2023-11-14T22:13:20.000+00:00", 0.0)


def test_each_counts_with_its_line() -> None:
    counts = Counts()
    count_all(counts, [LINE, OTHER], TIMES)

    assert (counts.requests, counts.statuses, counts.request_bytes, counts.scrubbed) == (2, {200: 1, 404: 1}, 6, 1)
    assert counts.seconds == pytest.approx(0.0200004)
    assert (counts.buckets[0], counts.buckets[2]) == (1, 1)


def test_a_message_is_read_as_lines_and_their_sums() -> None:
    counts = Counts()
    count_all(counts, [LINE, LINE], TIMES)

    assert len(TIMES) == 2 * TIMES_BYTES
    assert forwarded_from_wire(forwarded_to_wire(MESSAGE)) == ("run_1", counts, lines_of([LINE, LINE], 0xABC, TIMES))


def test_a_line_knows_how_long_it_will_be() -> None:
    assert LINE.size == len(lines_of([LINE], 1, packed(1.25, 20.0, 1.5)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: wire.pop("number"),
        lambda wire: wire.update(number=-1),
        lambda wire: wire.update(number=True),
        lambda wire: wire.update(run_id=7),
        lambda wire: wire.update(beginning=None),
        lambda wire: wire.update(status=1000),
        lambda wire: wire.update(scrubbed=1.5),
        lambda wire: wire.update(tail="text"),
        lambda wire: wire.update(tail=TIMES[:-1]),
        lambda wire: wire.update(tail=TIMES[:-8]),
        lambda wire: wire.update(beginning="x" * 1_000_000, tail=TIMES * 9),
        *(
            lambda wire, number=number, place=place: wire.update(
                tail=packed(*(number if each == place else 1.0 for each in range(3)))
            )
            for number in (math.nan, math.inf, -math.inf, 1e300, -1.0)
            for place in range(3)
        ),
        lambda wire: wire.update(tail=packed(1e14, 1.0, 1.0)),
    ],
)
def test_what_is_no_message_is_an_error(spoil: Callable[[dict[str, Any]], object]) -> None:
    wire = forwarded_to_wire(MESSAGE)
    spoil(wire)

    with pytest.raises((KeyError, TypeError, ValueError, OverflowError, OSError)):
        forwarded_from_wire(wire)


def test_nothing_is_nothing() -> None:
    assert forwarded_from_wire(forwarded_to_wire(Forwarded("run_1", LINE, 1, b"")))[1:] == (Counts(), b"")
    assert lines_of([], 1, b"") == b""
