"""First uses of grants that wait until the audit has them, and the answer: words of the audit's own socket. No I/O.

Those that follow one another and differ in their tunnel only are one row on the way: most of a busy moment's are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Spend(NamedTuple):
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
    rows: list[tuple[str, tuple[str, ...], str, str, list[int]]] = []
    for use in message.uses:
        if rows and rows[-1][:4] == use[:4]:
            rows[-1][4].append(use.tunnel)
        else:
            rows.append((*use[:4], [use.tunnel]))
    return {"type": "spends", "id": message.id, "uses": rows}


def entering_from_wire(wire: Mapping[str, Any]) -> Spends | Entered:
    """Return what the other side says. Raises TypeError, KeyError, ValueError."""
    number = _number(wire["id"])
    if wire["type"] == "entered":
        return Entered(number, tuple(map(_text, wire["problems"])))
    return Spends(number, tuple(use for row in wire["uses"] for use in _alike(*row)))


def _alike(
    run_id: object, grants: Sequence[object], authority: object, via: object, tunnels: Sequence[object]
) -> list[Spend]:
    same = _text(run_id), tuple(map(_text, grants)), _text(authority), _text(via)
    return [Spend(*same, _number(tunnel)) for tunnel in tunnels]


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
