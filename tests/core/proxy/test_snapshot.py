from __future__ import annotations

import json
from typing import Any

import pytest
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.rules import AddHeader, Match, RemoveHeader, ReplaceToken, SetHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.net.rules import parse_rule
from moat.proxy.snapshot import SnapshotError, from_wire, to_wire

MATCH = Match("api.example.com", ("GET",), ("/a/*",), "X-Api-Key")
CONTEXT = RunContext(
    "run_00000000000a",
    "ab" * 32,
    NetworkPolicy("strict", ("*.example.com",), (parse_rule("deny GET,POST *.example.com:8443/a/**"),)),
    (
        SetHeader(MATCH, "Authorization", "Bearer s3cr3t", "example"),
        AddHeader(MATCH, "X-Beta", "s3cr3t-beta"),
        AddHeader(MATCH, "X-Version", "2023-06-01", "example", is_secret=False),
        RemoveHeader(MATCH, "Cookie"),
        ReplaceToken(MATCH, "moat-placeholder", "s3cr3t-value", ("path", "body"), 99, True, "example"),
    ),
    is_open=True,
    probe_answer="s3cr3t-nonce",
    why_closed="the keyring is locked",
    trace_bodies=True,
    endpoints=(
        Endpoint(
            ProxyPath("/_moat/kube/"),
            Forward(Upstream("kube.example", ca="CA", client_certificate="s3cr3t-key"), (RemoveHeader(MATCH, "X"),)),
            "kube",
        ),
        Endpoint(ProxyPath("/_moat/plain/"), Forward(Upstream("plain.example", tls=False))),
    ),
)


def test_a_context_survives_the_wire_whole() -> None:
    assert from_wire(json.loads(json.dumps(to_wire(CONTEXT)))) == CONTEXT


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": 1},
        {"policy": {"mode": "open", "allow": []}},
        {"policy": {"mode": "strict", "allow": "a"}},
        {"policy": {"mode": "strict", "allow": [], "rules": ["permit everything"]}},
        {"rules": [{"do": "run_code"}]},
        {"endpoints": [{**to_wire(CONTEXT)["endpoints"][0], "where": {"prefix": "/s3cr3t/"}}]},
        {"endpoints": [{**to_wire(CONTEXT)["endpoints"][0], "how": {"do": "forward", "upstream": "s3cr3t"}}]},
        {"endpoints": [{**to_wire(CONTEXT)["endpoints"][0], "how": {"do": "s3cr3t"}}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][0], "value": "s3cr3t\r\nX: y"}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][0], "value": None}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][4], "placeholder": "s3cr3t?"}]},
        {"rules": [{**to_wire(CONTEXT)["rules"][4], "where": ["cookie"]}]},
    ],
)
def test_a_damaged_snapshot_is_an_error_that_quotes_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(SnapshotError) as error:
        from_wire({**to_wire(CONTEXT), **change})

    assert "s3cr3t" not in str(error.value)


def test_a_run_is_open_only_when_the_wire_says_true() -> None:
    assert not from_wire({**to_wire(CONTEXT), "is_open": "true"}).is_open


def test_a_value_is_secret_unless_the_wire_says_that_it_is_not() -> None:
    wire = to_wire(CONTEXT)
    del wire["rules"][0]["is_secret"]

    assert from_wire(wire) == CONTEXT


def test_a_daemon_that_knows_no_network_rules_has_none() -> None:
    wire = to_wire(CONTEXT)
    del wire["policy"]["rules"]

    assert from_wire(wire).policy == NetworkPolicy("strict", ("*.example.com",))
