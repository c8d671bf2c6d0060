"""First uses and their answer, as the audit's socket carries them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moat.proxy.entering import Entered, Spend, Spends, entering_from_wire, entering_to_wire

USES = (Spend("run_1", ("github", "aws"), "https://a.example", "connect", 3), Spend("run_2", (), "a", "v", 4))


@pytest.mark.parametrize("message", [Spends(7, USES), Spends(8, ()), Entered(7), Entered(8, ("", "the disk is full"))])
def test_what_is_said_is_what_is_heard(message: Spends | Entered) -> None:
    assert entering_from_wire(json.loads(json.dumps(entering_to_wire(message)))) == message


@pytest.mark.parametrize(
    "wire",
    [
        {"type": "spends", "id": True, "uses": []},
        {"type": "spends", "id": 1, "uses": [["run", ["g"], "a", "v", [1, True]]]},
        {"type": "spends", "id": 1, "uses": [["run", ["g"], "a", "v", 1]]},
        {"type": "spends", "id": 1, "uses": [["run", ["g"], None, "v", [1]]]},
        {"type": "entered", "id": 1, "problems": [None]},
        {"type": "entered", "id": None, "problems": []},
    ],
)
def test_what_is_neither_is_a_type_error(wire: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        entering_from_wire(wire)


def test_uses_that_differ_in_their_tunnel_only_are_one_row_and_keep_their_order() -> None:
    one, two = Spend("run_1", ("github",), "https://a.example", "connect", 3), USES[1]
    message = Spends(7, (one, one._replace(tunnel=5), two, one._replace(tunnel=4)))
    wire = entering_to_wire(message)

    assert [row[4] for row in wire["uses"]] == [[3, 5], [4], [4]]
    assert entering_from_wire(json.loads(json.dumps(wire))) == message
