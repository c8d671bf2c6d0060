from __future__ import annotations

import json
from typing import Any

import pytest
from moat.api.rules import AddHeader, Match, RemoveHeader, SetHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.proxy.snapshot import SnapshotError, from_wire, to_wire

MATCH = Match("api.example.com", ("GET",), ("/a/*",), "X-Api-Key")
CONTEXT = RunContext(
    "run_00000000000a",
    "ab" * 32,
    NetworkPolicy("strict", ("*.example.com",)),
    (
        SetHeader(MATCH, "Authorization", "Bearer s3cr3t", "example"),
        AddHeader(MATCH, "X-Beta", "s3cr3t-beta"),
        RemoveHeader(MATCH, "Cookie"),
    ),
    is_open=True,
    probe_answer="s3cr3t-nonce",
)


def test_a_context_survives_the_wire_whole() -> None:
    assert from_wire(json.loads(json.dumps(to_wire(CONTEXT)))) == CONTEXT


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": 1},
        {"policy": {"mode": "open", "allow": []}},
        {"policy": {"mode": "strict", "allow": "a"}},
        {"rules": [{"do": "run_code"}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][0], "value": "s3cr3t\r\nX: y"}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][0], "value": None}]},
    ],
)
def test_a_damaged_snapshot_is_an_error_that_quotes_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(SnapshotError) as error:
        from_wire({**to_wire(CONTEXT), **change})

    assert "s3cr3t" not in str(error.value)


def test_a_run_is_open_only_when_the_wire_says_true() -> None:
    assert not from_wire({**to_wire(CONTEXT), "is_open": "true"}).is_open
