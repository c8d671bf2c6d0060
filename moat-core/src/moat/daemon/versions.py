"""Which of two versions is newer? For the CLI, which may replace an older daemon and never a newer one. Pure."""

from __future__ import annotations

import re
from typing import TypeAlias

from moat.daemon.protocol import Health

HANDS_OVER = "restore"  # the capability of daemons that leave their runs to the next one
_VERSION = r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.dev(\d+))?(?:\+.*)?"
_STAGES = {"a": 0, "b": 1, "rc": 2, None: 3}

Rank: TypeAlias = tuple[tuple[int, ...], int, int, float]


def rank(version: str) -> Rank | None:
    """Return what versions are compared by (as PEP 440 orders them); None for what is no version."""
    match = re.fullmatch(_VERSION, version)
    if match is None:
        return None
    numbers = [int(part) for part in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    stage = -1 if match[4] and match[2] is None else _STAGES[match[2]]  # 1.0.dev1 comes before 1.0a1
    return tuple(numbers), stage, int(match[3] or 0), float(match[4] or "inf")


def should_replace(own: str, health: Health) -> bool:
    """Return whether a command of version own replaces a daemon: an older one, whose runs are not lost by that.

    Never an equal or a newer one, so that two versions side by side do not replace each other for ever.
    """
    if own == health.version:  # as at nearly every start
        return False
    ours, theirs = rank(own), rank(health.version)
    if ours is None or theirs is None or ours <= theirs:
        return False
    return (HANDS_OVER in health.capabilities and health.bound_run_count == 0) or health.run_count == 0
