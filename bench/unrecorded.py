"""The worker with trace and audit off: the base against which their cost is measured. Only the bench can start it.

Nothing is reported, and every grant is known to the audit, as if its first use were entered. What a request does before
it tells of its end remains: three clocks and what is between them.
"""

from __future__ import annotations

import sys

from moat.api.runs import ExchangeRecord
from moat.proxy.record import Line
from moat.proxy.server import house, worker
from moat.proxy.server.pool import Key
from moat.proxy.server.reports import Reports
from moat.proxy.server.spending import Spending, Tunnel, Use


class Silent(Reports):
    """Tells the daemon everything but exchanges."""

    def exchange(self, record: ExchangeRecord) -> None:
        """Forget it."""

    def forwarded(self, run_id: str, line: Line, at: float, duration_ms: float, first_byte_ms: float) -> None:
        """Forget it."""


class Unasked(Spending):
    """Asks for nothing and counts nothing."""

    def tunnel(self) -> Tunnel:
        """Return one in which everything is known."""
        return Known(self, 0)


class Known(Tunnel):
    """A tunnel without an audit."""

    def known(self, key: Key) -> Use | None:
        """Say that it is entered, and counted already."""
        return Use(key, 1, is_fresh=False)

    async def enter(self, key: Key, via: str) -> Use:
        """Let it leave."""
        return Use(key, 1, is_fresh=False)


if __name__ == "__main__":
    worker.Reports, house.Spending = Silent, Unasked  # type: ignore[misc]
    sys.exit(worker.main())
