"""Exchanges that were forwarded and differ in their times only: numbers on their way, lines in the end. No I/O.

    worker ─ what all have in common once, 24 bytes each ─▶ daemon: a line of JSON each (docs/trace.md), and their sums

Objects that wait among other work are out of every cache when their turn comes; packed numbers are not. And what is not
text yet is neither copied nor looked at on the way.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any

from moat.frames import LIMIT_BYTES, TAIL
from moat.proxy.counts import Counts
from moat.proxy.record import Line, millisecond

_TIMES = Struct("=3d")  # both processes are of one machine
TIMES_BYTES = _TIMES.size
packed = _TIMES.pack
"""The times of one exchange: when it began, Unix seconds, and the milliseconds to its end and to the first byte."""

_FORM = b'%s%08x","at":"%s","duration_ms":%.3f,"first_byte_ms":%.3f}\n'
_PARTS = 5
_MAX_NUMBER = 2**53
_NUMBERS = ("number", "status", "request_bytes", "response_bytes", "scrubbed")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Exchanges of one run with one line. number: of the first one's id, the rest follow. times: `packed`, of each."""

    run_id: str
    line: Line
    number: int
    times: bytes


def lines_of(lines: Sequence[Line], number: int, times: bytes | bytearray) -> bytes:
    """Return the lines of exchanges, each with its end. number, times: as in Forwarded.

    All at once: for each by itself this costs twice as much. Raises ValueError, OverflowError and OSError for no times.
    """
    return _lines_of([line.beginning.encode() for line in lines], number, _unpacked(times))


def count_all(counts: Counts, lines: Iterable[Line], times: bytes | bytearray) -> None:
    """Count exchanges. lines: of each."""
    counts.forwarded(Counter(lines), _unpacked(times)[1::3])


def forwarded_to_wire(message: Forwarded) -> dict[str, Any]:
    """Return a message as JSON with a tail."""
    line = message.line
    return {
        "type": "forwarded", "run_id": message.run_id, "number": message.number, "beginning": line.beginning,
        "status": line.status, "request_bytes": line.request_bytes, "response_bytes": line.response_bytes,
        "scrubbed": line.scrubbed, TAIL: message.times,
    }  # fmt: skip


def forwarded_from_wire(wire: Mapping[str, Any]) -> tuple[str, Counts, bytes]:
    """Return what a message says: the run, the sums, the lines.

    Raises KeyError, TypeError, ValueError, OverflowError and OSError for what is none.
    """
    run_id, beginning, packed_times = wire["run_id"], wire["beginning"], wire[TAIL]
    if not isinstance(run_id, str) or not isinstance(beginning, str) or not isinstance(packed_times, bytes):
        raise TypeError
    number, *sums = [_number(wire[name]) for name in _NUMBERS]
    times, start = _unpacked(packed_times), beginning.encode()
    count = len(times) // 3
    if len(packed_times) % TIMES_BYTES or not (min(times, default=0.0) >= 0 and sum(times) < _MAX_NUMBER):
        raise ValueError("times are none")  # as what is infinite or no number
    if sums[0] > 999 or len(start) * count > LIMIT_BYTES:
        raise ValueError("a status is none, or the lines are longer than a frame")
    counts = Counts()
    counts.forwarded({Line(beginning, *sums): count}, times[1::3])
    return run_id, counts, _lines_of([start] * count, number, times)


def _lines_of(beginnings: Sequence[bytes], number: int, times: Sequence[float]) -> bytes:
    count = len(beginnings)
    values: list[Any] = [None] * (count * _PARTS)
    values[::_PARTS] = beginnings
    values[1::_PARTS] = range(number, number + count)
    values[2::_PARTS] = map(_moment, [int(at * 1000) for at in times[::3]])
    values[3::_PARTS] = times[1::3]
    values[4::_PARTS] = times[2::3]
    return _form(count) % tuple(values)


def _unpacked(times: bytes | bytearray) -> list[float]:
    return array("d", times).tolist()


@lru_cache(maxsize=64)  # what ends together began together
def _moment(milliseconds: int) -> bytes:
    return millisecond(milliseconds).encode()


@lru_cache(maxsize=8)
def _form(count: int) -> bytes:
    return _FORM * count


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise TypeError
    return value
