"""What was worked out for the last request of a connection and its answer, for when the next are the same. No I/O.

Clients poll, and APIs answer alike: then judging, rendering and looking for secrets would find what they found before.
`http1` returns the same object for the same bytes, and what is remembered holds while everything it was made of is the
same: a run that was replaced is another object, and so is the set of its secrets once it has grown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import judge_anywhere
from moat.proxy.flow import Arrival, Passage
from moat.proxy.http1 import Request
from moat.proxy.record import Trail
from moat.proxy.telling import Told

T = TypeVar("T")


class Last(Generic[T]):
    """A memory for one value and what it was made of."""

    _parts: tuple[object, ...] = ()  # of the class: each connection has three, and mostly uses none
    _value: T | None = None

    def made_of(self, *parts: object) -> T | None:
        """Return the value if it was made of these, else None."""
        return self._value if parts == self._parts else None  # comparing tuples asks for identity first

    def keep(self, value: T, *parts: object) -> T:
        """Remember value, and return it."""
        self._value, self._parts = value, parts
        return value


@dataclass(slots=True)
class Repeats:
    """The memory of one connection. passages: judgements. asked: heads as they go upstream. told: heads of answers."""

    passages: Last[Passage] = field(default_factory=Last)
    asked: Last[bytes] = field(default_factory=Last)
    told: Last[Told] = field(default_factory=Last)

    def judge(self, run: LiveRun, arrival: Arrival, request: Request, trail: Trail) -> Passage:
        """Take one request through every decision. Raises Refusal."""
        scrub = run.spent.scrub
        known = self.passages.made_of(run, scrub, arrival, request)
        if known is not None:
            trail.introduce(request.version, request.fields, run.spent.unsaid)
            trail.ask(request.method, request.target, run.spent.unsaid)
            trail.aim(known.authority)
            return known
        passage = judge_anywhere(run, arrival, request, trail)
        # A body to be changed holds the state of that, an endpoint's requests are recorded otherwise, what is signed
        # is signed once.
        if passage.body is None and passage.upstream is None and passage.sign is None:
            self.passages.keep(passage, run, run.spent.scrub, arrival, request)
        return passage
