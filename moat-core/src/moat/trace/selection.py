"""Which exchanges of a trace are wanted: by host, status, outcome and time taken. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from moat.api.errors import UsageError
from moat.api.runs import ExchangeRecord

SLOW_MS = 1_000.0
_STATUS = re.compile(r"([1-5])xx|([0-9]{3})(?:-([0-9]{3}))?")
_HOST = re.compile(r"[^\s/@]+")  # with what fnmatch knows; an address of IPv6 has colons


@dataclass(frozen=True, slots=True)
class Selection:
    """What must hold of an exchange; what is empty holds always. hosts: `*` is for anything. statuses: see ranges."""

    hosts: tuple[str, ...] = ()
    statuses: tuple[range, ...] = ()
    denied: bool = False
    slow: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether there is anything that must hold."""
        return self != Selection()

    def takes(self, exchange: ExchangeRecord) -> bool:
        """Whether an exchange is wanted."""
        return (
            (not self.hosts or any(fnmatchcase(exchange.host, host.lower()) for host in self.hosts))
            and (not self.statuses or any(exchange.status in each for each in self.statuses))
            and (not self.denied or exchange.outcome == "denied")
            and (not self.slow or exchange.duration_ms >= SLOW_MS)
        )


def ranges(texts: Iterable[str]) -> tuple[range, ...]:
    """Return what `404`, `4xx` and `400-499` mean. Raises UsageError."""
    return tuple(_range(text) for text in texts)


def hosts_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return names and patterns of hosts as they may stand in a selection. Raises UsageError."""
    found = tuple(texts)
    for text in found:
        if _HOST.fullmatch(text) is None:
            raise UsageError(f"{text!r} is no host", hint="write api.example.com or '*.example.com', without https://")
    return found


def _range(text: str) -> range:
    match = _STATUS.fullmatch(text.lower())
    if match is None:
        raise UsageError(f"{text!r} is no status", hint="write 404, 4xx or 400-499")
    if match[1]:
        return range(int(match[1]) * 100, int(match[1]) * 100 + 100)
    wanted = range(int(match[2]), int(match[3] or match[2]) + 1)
    if not wanted:
        raise UsageError(f"{text!r} goes backwards", hint=f"write {match[3]}-{match[2]}")
    return wanted
