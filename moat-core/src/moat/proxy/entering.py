"""First uses of grants that wait until the audit has them, and the answer: words of the audit's own socket. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spend:
    """Grants are about to be spent for the first time in a tunnel. authority: with its scheme. tunnel: its number."""

    run_id: str
    grants: tuple[str, ...]
    authority: str
    via: str
    tunnel: int


@dataclass(frozen=True, slots=True)
class Spends:
    """First uses, of any runs, that wait until they are entered into the audit."""

    id: int
    uses: tuple[Spend, ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """The answer to Spends. problems: of each use, "" for one that is entered for good; () where all are."""

    id: int
    problems: tuple[str, ...] = ()


def entering_to_wire(message: Spends | Entered) -> dict[str, Any]:
    """Return a message as one JSON object."""
    if isinstance(message, Entered):
        return {"type": "entered", "id": message.id, "problems": message.problems}
    rows = [[each.run_id, each.grants, each.authority, each.via, each.tunnel] for each in message.uses]
    return {"type": "spends", "id": message.id, "uses": rows}


def entering_from_wire(wire: Mapping[str, Any]) -> Spends | Entered:
    """Return what the other side says. Raises TypeError, KeyError, ValueError."""
    number = wire["id"]
    if type(number) is not int:
        raise TypeError
    if wire["type"] == "entered":
        return Entered(number, tuple(map(_text, wire["problems"])))
    return Spends(number, tuple(_spend(*row) for row in wire["uses"]))


def _spend(run_id: object, grants: Sequence[object], authority: object, via: object, tunnel: object) -> Spend:
    if type(tunnel) is not int:
        raise TypeError
    return Spend(_text(run_id), tuple(map(_text, grants)), _text(authority), _text(via), tunnel)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
