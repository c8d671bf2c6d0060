"""Limits that a process passes on to what it runs, for runs without a container of their own: ulimits and nothing else.

Memory, processors and processes of a whole run need a control group; a limit of one process is none of the run's.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from pathlib import Path

from moat.api.container import Limits

PRLIMIT = "/usr/bin/prlimit"  # util-linux; it lies in /usr, which a run in bubblewrap sees
NO_LIMIT = -1
_NUMBERS = {
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "stack": resource.RLIMIT_STACK,
}


def unenforced(
    limits: Limits,
    *,
    current: Callable[[int], tuple[int, int]] = resource.getrlimit,
    has_program: Callable[[str], bool] = lambda path: Path(path).exists(),
) -> tuple[str, ...]:
    """Return the names of those limits that cannot be set for a process without rights: hard limits only go down."""
    settable = {
        f"ulimits.{name}"
        for name, (_, hard) in limits.ulimits.items()
        if name in _NUMBERS and has_program(PRLIMIT) and _fits(hard, current(_NUMBERS[name])[1])
    }
    return tuple(name for name in limits.names() if name not in settable)


def limited(argv: tuple[str, ...], ulimits: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Return the command line that runs argv with ulimits."""
    if not ulimits:
        return argv
    options = (f"--{name}={_word(soft)}:{_word(hard)}" for name, (soft, hard) in sorted(ulimits.items()))
    return (PRLIMIT, *options, "--", *argv)


def _fits(wanted: int, most: int) -> bool:
    return most == resource.RLIM_INFINITY or NO_LIMIT != wanted <= most


def _word(number: int) -> str:
    return "unlimited" if number == NO_LIMIT else str(number)
