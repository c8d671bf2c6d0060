"""How many bytes of whole bodies one run has held at this moment: requests, answers, questions. No I/O.

    with Share(run.holds) as share:         one body's
        share.at_least(len(held))           Refusal when the run's bodies together would be too much
        share.give_back()                   it has left; the end of `with` does the same

Each body has the bound of its rule; a run may send thousands at once. What one run holds is nothing to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from moat.proxy.limits import Limits
from moat.proxy.refusal import Refusal

_LIMIT_BYTES = Limits().held_bytes


@dataclass(slots=True)
class Holds:
    """One run's account; goes on to whatever replaces the run. limit_bytes: of all its bodies; held_bytes: now."""

    limit_bytes: int = _LIMIT_BYTES
    held_bytes: int = 0


@dataclass(slots=True)
class Share:
    """What one body has of its run's account. It may be entered by several, and is given back with the last."""

    holds: Holds = field(default_factory=Holds)
    held_bytes: int = 0
    _users: int = 0

    def __enter__(self) -> Share:
        self._users += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._users -= 1
        if not self._users:
            self.give_back()

    def fits(self, count: int) -> bool:
        """Have at least count bytes; False where they are too much for the run."""
        more = count - self.held_bytes
        if more > 0 and self.holds.held_bytes + more > self.holds.limit_bytes:
            return False
        if more > 0:
            self.holds.held_bytes += more
            self.held_bytes = count
        return True

    def at_least(self, count: int) -> None:
        """Have at least count bytes. Raises Refusal where they are too much for the run."""
        if not self.fits(count):
            raise Refusal(503, f"{self.problem}; others of its own must end first", kind="held")

    def give_back(self) -> None:
        """Have nothing."""
        self.holds.held_bytes -= self.held_bytes
        self.held_bytes = 0

    @property
    def problem(self) -> str:
        """Why there is no room."""
        return f"the run holds as much of bodies as it may, {self.holds.limit_bytes} bytes"
