"""What is counted of exchanges, for operators: where they end, and told in sums, since reading lines again costs.

No count is by anything that grows with what runs do: outcomes, statuses and times have bounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from moat.api.runs import ExchangeRecord
from moat.proxy.record import Line

OUTCOMES = ("forwarded", "denied", "refused", "failed")
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BUCKETS_MS = tuple(1000 * each for each in BUCKETS_S)
_SUMS = ("request_bytes", "response_bytes", "scrubbed")


@dataclass(slots=True)
class Counts:
    """Sums over exchanges. statuses: of answers, 0 for none.

    buckets: how many took at most each of BUCKETS_S, and how many longer; each is in one.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    request_bytes: int = 0
    response_bytes: int = 0
    scrubbed: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    @property
    def requests(self) -> int:
        """How many exchanges."""
        return self.outcomes.total()

    @property
    def denied(self) -> int:
        """How many were kept in by the policy."""
        return self.outcomes["denied"]

    def record(self, record: ExchangeRecord) -> None:
        """Count one exchange."""
        self.outcomes[record.outcome] += 1
        self.statuses[record.status] += 1
        self.request_bytes += record.request_bytes
        self.response_bytes += record.response_bytes
        self.scrubbed += record.scrubbed
        self.seconds += record.duration_ms / 1000
        self.buckets[bisect_left(_BUCKETS_MS, record.duration_ms)] += 1

    def forwarded(self, lines: Mapping[Line, int], spans_ms: Sequence[float]) -> None:
        """Count exchanges that were forwarded, all at once. lines: how many had each. spans_ms: of all of them."""
        self.outcomes["forwarded"] += len(spans_ms)
        for line, count in lines.items():
            self.statuses[line.status] += count
            self.request_bytes += count * line.request_bytes
            self.response_bytes += count * line.response_bytes
            self.scrubbed += count * line.scrubbed
        self.seconds += sum(spans_ms) / 1000
        longer = sorted([span for span in spans_ms if span > _BUCKETS_MS[0]])  # few, and sorting costs most
        ends = [len(longer) - len(spans_ms), *(bisect_right(longer, limit) for limit in _BUCKETS_MS), len(longer)]
        self.buckets = [count + end - begin for count, (begin, end) in zip(self.buckets, pairwise(ends), strict=True)]

    def add(self, other: Counts) -> None:
        """Count what was counted elsewhere."""
        self.outcomes.update(other.outcomes)
        self.statuses.update(other.statuses)
        self.seconds += other.seconds
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def to_wire(counts: Counts) -> dict[str, Any]:
    """Return counts as a JSON object."""
    sums = {name: getattr(counts, name) for name in _SUMS}
    statuses = {str(status): count for status, count in counts.statuses.items()}
    return {
        "outcomes": counts.outcomes,
        "statuses": statuses,
        "seconds": counts.seconds,
        "buckets": counts.buckets,
    } | sums


def from_wire(wire: Mapping[str, Any]) -> Counts:
    """Return the counts in a JSON object. Raises KeyError, TypeError and ValueError for what is none."""
    outcomes = Counter({name: _number(count) for name, count in wire["outcomes"].items()})
    statuses = Counter({int(status): _number(count) for status, count in wire["statuses"].items()})
    seconds, buckets = wire["seconds"], [_number(count) for count in wire["buckets"]]
    if not outcomes.keys() <= set(OUTCOMES) or len(buckets) != len(BUCKETS_S) + 1:
        raise ValueError("an outcome or a bucket is unknown")
    if any(not 0 <= status <= 999 for status in statuses) or type(seconds) not in (int, float):
        raise ValueError("a status or a time is none")
    up, down, scrubbed = (_number(wire[name]) for name in _SUMS)
    return Counts(outcomes, statuses, up, down, scrubbed, float(seconds), buckets)


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value
