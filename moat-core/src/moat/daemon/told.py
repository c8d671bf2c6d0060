"""Reads the daemon's stream of events, as `GET /v1/events` has it. Standard library only, and no I/O of its own.

lines ─▶ Told(kind, data) …, the last one `closed` or `dropped`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any

from moat.api.light import dataclass

LAST = ("closed", "dropped")


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened: run_started, run_stopped, exchange, grant, or the end of the stream."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Whose it is, "" for what concerns no single run."""
        return str(self.data.get("run_id", ""))


def told(lines: Iterable[bytes]) -> Iterator[Told]:
    """Yield events until the last one. Raises ConnectionResetError without one, ValueError for what is no event."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\r\n").partition(": ")
        if name:
            fields[name] = value
        elif not value and "event" in fields:
            event = Told(fields.pop("event"), json.loads(fields.pop("data", "{}")))
            yield event
            if event.kind in LAST:
                return
    raise ConnectionResetError("the events broke off")
