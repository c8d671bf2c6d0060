from __future__ import annotations

import base64

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import AddHeader, Match, OnlyPlaceholder, RemoveHeader, Rule, SetHeader, Surface
from moat.proxy.own_keys import keep_in_own_keys, without_keys
from moat.proxy.refusal import Refusal

HERE = "moat-placeholder"
API = Authority("https", "api.example.com", 443)


def ask(name: str, *headers: tuple[str, str], target: str = "/v1", where: Surface = "header") -> None:
    rules = (
        SetHeader(Match("api.example.com"), name, "s3cr3t", "g"),
        OnlyPlaceholder(Match("api.example.com", (), ("/v1/**",)), name, HERE, where, "g"),
    )
    keep_in_own_keys(rules, RequestHead("GET", API, target, Headers(headers)))


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("X-Key", HERE),),
        (("x-key", f"Bearer {HERE}"),),
        (("X-KEY", f" {HERE} "),),
        (("X-Key", basic(f"u:{HERE}")),),
    ],
    ids=["absent", "alone", "after a scheme", "with blanks", "as a password"],
)
def test_the_placeholder_or_nothing_is_let_through(headers: tuple[tuple[str, str], ...]) -> None:
    ask("X-Key", *headers)


@pytest.mark.parametrize(
    "headers",
    [
        (("X-Key", "theirs"),),
        (("X-Key", ""),),
        (("X-Key", f"{HERE}x"),),
        (("X-Key", f"theirs {HERE} theirs"),),
        (("X-Key", HERE), ("x-key", "theirs")),
        (("X-Key", basic(f"{HERE}:theirs")),),
        (("X-Key", "Basic !!!"),),
    ],
)
def test_any_other_key_is_kept_in_and_not_quoted(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Refusal) as refused:
        ask("X-Key", *headers)

    assert (refused.value.status, refused.value.outcome, refused.value.kind) == (403, "denied", "credential")
    assert "theirs" not in refused.value.reason
    assert HERE in refused.value.reason


@pytest.mark.parametrize(
    "query", ["key=theirs", "a=b&KEY=theirs", "a;key=theirs", f"key={HERE}&key=theirs", "k%65y=theirs", "key="]
)
def test_a_key_in_the_query_is_kept_in(query: str) -> None:
    with pytest.raises(Refusal):
        ask("key", target=f"/v1/x?{query}", where="query")


def test_a_query_with_the_placeholder_or_without_the_parameter_is_let_through() -> None:
    ask("key", target=f"/v1/x?key={HERE}&a=b", where="query")
    ask("key", target="/v1/x?monkey=theirs", where="query")
    ask("key", ("key", "theirs"), target="/v1/x", where="query")


def test_other_paths_are_free_and_doubtful_ones_are_not() -> None:
    ask("X-Key", ("X-Key", "theirs"), target="/v2")
    with pytest.raises(Refusal):
        ask("X-Key", ("X-Key", "theirs"), target="/v2/..%2fv1")


@pytest.mark.parametrize(
    ("rule", "is_kept_in"),
    [
        (SetHeader(Match("api.example.com", ("GET",), ("/other",)), "X-Key", "s3cr3t"), True),
        (AddHeader(Match("api.example.com"), "x-key", "s3cr3t"), True),
        (RemoveHeader(Match("api.example.com"), "X-KEY"), True),
        (OnlyPlaceholder(Match("api.example.com"), "X-Key", HERE), True),
        (OnlyPlaceholder(Match("api.example.com"), "X-Key", HERE, "query"), False),
        (SetHeader(Match("api.example.com"), "X-Other", "s3cr3t"), False),
    ],
)
@pytest.mark.parametrize("name", ["x-key", "X-Key", "X_Key"])
def test_a_field_that_a_rule_names_is_no_trailer(rule: Rule, is_kept_in: bool, name: str) -> None:
    left = without_keys([rule], [(name, "mine"), ("X-Sum", "1")])

    assert left == [pair for pair in ((name, "mine"), ("X-Sum", "1")) if pair[0] == "X-Sum" or not is_kept_in]
