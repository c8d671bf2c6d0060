"""How many wrong tokens a peer may show before it is slowed down. Successes cost nothing. No I/O.

    10 failures ─▶ at once          each further one ─▶ late, and the last on its connection          6 s ─▶ one more

Only whoever fails is slowed: the right token is let in at once, from the same address too.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_PEERS = 1024  # addresses remembered; the one that failed longest ago is forgotten first


@dataclass(slots=True)
class FailureBudget:
    """Failures by peer, as buckets that leak: allowance of them, one more every refill_s."""

    allowance: int = 10
    refill_s: float = 6.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _levels: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def is_spent_by(self, peer: str) -> bool:
        """Count one failure of peer; return whether it had none left."""
        now = self.clock()
        level, since = self._levels.pop(peer, (0.0, now))
        level = max(0.0, level - (now - since) / self.refill_s)
        is_spent = level > self.allowance - 1
        self._levels[peer] = (min(level + 1, float(self.allowance)), now)
        if len(self._levels) > MAX_PEERS:
            self._levels.popitem(last=False)
        return is_spent
