from __future__ import annotations

from typing import get_args

import pytest
from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Instead,
    Match,
    OnlyPlaceholder,
    OnlyTools,
    ReadUsage,
    RemoveHeader,
    ReplaceToken,
    RewriteResponse,
    Rule,
    SetHeader,
    Sign,
)
from moat.daemon.rule_words import rule_words

HOST = Match("api.example.com")
SECRET = "s3cr3t-value"
LINES = [
    (SetHeader(HOST, "Authorization", SECRET, "github"), "sets Authorization: (redacted), for github"),
    (AddHeader(HOST, "X-Key", SECRET), "adds X-Key: (redacted)"),
    (RemoveHeader(HOST, "X-Key"), "removes X-Key"),
    (ReplaceToken(HOST, "placeholder-1", SECRET, ("header", "body")),
     "replaces placeholder-1 in header, body by (redacted)"),
    (OnlyPlaceholder(HOST, "X-Key", "placeholder-1"), "lets through nothing but the placeholder in header X-Key"),
    (ReadUsage(HOST, grant="g"), "reads model and tokens from answers, for g"),
    (OnlyTools(HOST, ("list",)), "lets only these tools be called: list"),
    (RewriteResponse(Match("api.example.com", paths=("/a",)), Instead(200, SECRET)),
     "replaces answers that a tool cannot bear"),
    (CaptureToken(Match("api.example.com", paths=("/a",)), "github", {"x": SECRET}, {"token": "placeholder-1"}),
     "keeps the tokens of answers outside, and shows placeholders, for github"),
    (Sign(HOST, "aws"), "signs requests anew; the key stays outside, for aws"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "line"), LINES, ids=lambda value: type(value).__name__)
def test_a_rule_says_what_it_does_and_not_with_what(rule: Rule, line: str) -> None:
    told = rule_words(rule)

    assert told.endswith(f": {line}")
    assert told.startswith("api.example.com")
    assert "s3cr3t" not in told


def test_every_kind_of_rule_has_its_words() -> None:
    assert {type(rule) for rule, _ in LINES} == set(get_args(Rule))


def test_the_requests_are_named_by_all_that_chooses_them() -> None:
    match = Match("api.example.com", ("GET", "POST"), ("/a/**", "/b"), "x-key", any_port=True)

    assert rule_words(RemoveHeader(match, "X")).startswith("GET,POST api.example.com:* /a/** or /b with x-key: ")
