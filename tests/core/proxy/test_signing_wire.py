from __future__ import annotations

import json

import pytest
from moat.api.errors import MoatError
from moat.api.http import Headers
from moat.api.signing import Signed, Unsigned
from moat.proxy.signing_wire import signed_from_wire, signed_to_wire, unsigned_from_wire, unsigned_to_wire

REQUEST = Unsigned("run_1", "PUT", "a.example:8443", "/x?y", Headers((("A", "b"), ("A", "c"))), "ab")
SIGNED = Signed("/x?y&z", (("Authorization", "s3cr3t"),), ("date",), ("s3cr3t",), is_spent=False)


def test_both_survive_the_wire() -> None:
    assert unsigned_from_wire(json.loads(json.dumps(unsigned_to_wire(REQUEST)))) == REQUEST
    assert signed_from_wire(json.loads(json.dumps(signed_to_wire(SIGNED)))) == SIGNED


@pytest.mark.parametrize(
    "change", [{"target": "no"}, {"headers": {"a": "b"}}, {"headers": [["a", 1]]}, {"secrets": [1]}]
)
def test_what_is_none_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, MoatError)):
        signed_from_wire(signed_to_wire(SIGNED) | change)
