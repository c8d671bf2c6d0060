from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from moat.api.errors import MoatError
from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Instead,
    Match,
    OnlyPlaceholder,
    OnlyTools,
    Price,
    ReadUsage,
    RemoveHeader,
    ReplaceToken,
    Rewriter,
    RewriteResponse,
    Rule,
    SetHeader,
    Sign,
)
from moat.proxy import rule_wire
from moat.proxy.rule_wire import rule_from_wire, rule_to_wire

MATCH = Match("api.example.com:8443", ("GET", "POST"), ("/a/**",), "X-Key")
RULES: tuple[Rule, ...] = (
    SetHeader(MATCH, "Authorization", "Bearer s3cr3t", "g", is_secret=False),
    AddHeader(MATCH, "X-More", "s3cr3t", "g"),
    RemoveHeader(MATCH, "X-Less", "g"),
    ReplaceToken(MATCH, "moat-placeholder", "s3cr3t", ("path", "body"), 5, True, "g"),
    OnlyPlaceholder(MATCH, "key", "moat-placeholder", "query", "g"),
    RewriteResponse(MATCH, Instead(200, "{}", "text/plain"), (403, 404), (), 7, "refuse", "g"),
    RewriteResponse(MATCH, Rewriter("loud", {"sign": "!"})),
    CaptureToken(MATCH, "g", {"grant_type": "refresh_token"}, {"access_token": "moat-placeholder"}, ("id_token",), 9),
    OnlyTools(MATCH, ("read", "list"), 1_000, "g"),
    ReadUsage(MATCH, ("a.b", "b"), cached=("c",), is_apart=True, prices=(Price("big-1", 1.0, 2.5, 0.1),), grant="g"),
    Sign(Match("*.example.com"), "g", "x-digest", 5),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_rule_survives_the_wire_whole(rule: Rule) -> None:
    assert rule_from_wire(json.loads(json.dumps(rule_to_wire(rule)))) == rule


def test_every_kind_of_rule_has_a_name_on_the_wire() -> None:
    assert set(rule_wire._RULES.values()) == set(get_args(Rule))


def test_what_an_older_daemon_leaves_out_has_its_default() -> None:
    wire = rule_to_wire(RULES[0])
    del wire["is_secret"], wire["grant"]

    assert rule_from_wire(wire) == SetHeader(MATCH, "Authorization", "Bearer s3cr3t")


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"do": "run_code"}), (0, {"value": None}), (0, {"value": "s3cr3t\r\nX: y"}), (0, {"is_secret": 1}),
        (3, {"limit_bytes": True}), (3, {"limit_bytes": "5"}), (3, {"where": "body"}), (3, {"where": ["cookie"]}),
        (4, {"where": "body"}), (5, {"how": {"do": "exec"}}), (5, {"statuses": ["403"]}), (5, {"otherwise": "s3cr3t"}),
        (6, {"how": {"do": "rewriter", "name": "x", "parameters": {"a": 1}}}), (7, {"tokens": ["s3cr3t"]}),
        (7, {"match": {"authority": "a"}, "tokens": {}}), (1, {"match": None}),
        (9, {"prices": [{"model": "big-1", "input": "1", "output": 1, "cached": 1}]}), (9, {"prices": [7]}),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_an_error_that_quotes_nothing(index: int, change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, MoatError)) as error:
        rule_from_wire({**rule_to_wire(RULES[index]), **change})

    assert "s3cr3t\r" not in str(error.value)
