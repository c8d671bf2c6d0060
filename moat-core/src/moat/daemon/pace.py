"""When a credential is renewed: the provider's interval, its expiry, jitter, and back-off after failures. Pure.

every_s, and MARGIN before the end of its life ─▶ earlier by up to JITTER        failed n times ─▶ FIRST · 2ⁿ⁻¹ …
"""

from __future__ import annotations

from datetime import datetime

JITTER = 0.1  # so that a hundred runs that began together do not ask together
MARGIN = 0.2  # of the life that is left: room for a few failures before the end
FIRST_RETRY_S, MAX_RETRY_S = 5.0, 900.0
SHORTEST_S = 1.0
EARLY_PAUSE_S = 60.0  # between renewals that a 401 asked for: a service that rejects everything is not flooded
LOOK_AGAIN_S = 30.0  # for a credential that the user has granted anew


def delay(
    every_s: float, left_s: float | None, failures: int, roll: float, shortest_s: float = SHORTEST_S
) -> float:  # fmt: skip
    """Return how long to wait before the next renewal.

    every_s: the provider's interval. left_s: until the credential expires, None if it never does. failures: in a row.
    roll: between 0 and 1, by chance. shortest_s: between two renewals; a credential that was made just now
    and seems to be at its end already says that a clock is wrong, ours or the service's.
    """
    if failures:
        wanted = min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 20), MAX_RETRY_S, max(every_s, FIRST_RETRY_S))
    else:
        wanted = every_s if left_s is None else max(min(every_s, left_s * (1 - MARGIN)), shortest_s)
    return max(wanted * (1 - JITTER * roll), SHORTEST_S)


def is_early_allowed(now: datetime, last: datetime | None) -> bool:
    """Whether a 401 may bring the next renewal forward. last: when one was tried, by a clock that may be set back."""
    return last is None or not 0 <= (now - last).total_seconds() < EARLY_PAUSE_S
