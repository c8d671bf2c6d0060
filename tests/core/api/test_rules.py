from __future__ import annotations

import pytest
from moat.api.errors import MoatError
from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Instead,
    Match,
    OnlyPlaceholder,
    RemoveHeader,
    ReplaceToken,
    Rewriter,
    RewriteResponse,
    SetHeader,
)

MATCH = Match("api.example.com")


@pytest.mark.parametrize("kind", [SetHeader, AddHeader])
def test_a_rule_does_not_show_its_value(kind: type[SetHeader] | type[AddHeader]) -> None:
    assert "s3cr3t" not in repr(kind(MATCH, "Authorization", "Bearer s3cr3t"))


@pytest.mark.parametrize("kind", [SetHeader, AddHeader])
@pytest.mark.parametrize("value", ["a\r\nX: 1", "a\nb", "a\0", "a\x7f", "caf\u00e9", "\u2028"])
def test_a_value_that_could_break_out_is_refused_without_showing_it(
    kind: type[SetHeader] | type[AddHeader], value: str
) -> None:
    with pytest.raises(MoatError) as caught:
        kind(MATCH, "Authorization", f"s3cr3t{value}")

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r", "\u00c9", "(x)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    for make in (
        lambda: SetHeader(MATCH, name, "v"),
        lambda: AddHeader(MATCH, name, "v"),
        lambda: RemoveHeader(MATCH, name),
    ):
        with pytest.raises(MoatError, match="not a token"):
            make()


@pytest.mark.parametrize("name", ["x-api-key", "PRIVATE-TOKEN", "!#$%&'*+-.^_`|~0"])
def test_every_token_of_the_standard_may_be_a_name(name: str) -> None:
    assert SetHeader(MATCH, name, "v").name == name


def test_rules_are_values() -> None:
    assert SetHeader(MATCH, "A", "1", "g") == SetHeader(Match("api.example.com"), "A", "1", "g")
    assert SetHeader(MATCH, "A", "1", "g") != SetHeader(MATCH, "A", "2", "g")


def test_a_placeholder_is_long_and_survives_every_encoding() -> None:
    match = Match("api.example.com")

    assert "s3cr3t" not in repr(ReplaceToken(match, "moat-placeholder", "s3cr3t"))
    for placeholder in ("", "short", "has space in it", "per%cent-per%cent"):
        with pytest.raises(MoatError):
            ReplaceToken(match, placeholder, "s3cr3t")
    with pytest.raises(MoatError):
        ReplaceToken(match, "moat-placeholder", "s3cr3t\r\n")
    for where in ((), ("cookie",)):
        with pytest.raises(MoatError):
            ReplaceToken(match, "moat-placeholder", "s3cr3t", where)  # type: ignore[arg-type] # that is the claim


def test_a_capture_says_where_for_whom_and_from_what() -> None:
    path = Match("api.example.com", ("POST",), ("/token",))
    tokens = {"access_token": "moat-placeholder"}

    assert CaptureToken(path, "g", {}, tokens).tokens == tokens
    for match, grant, fields in (
        (MATCH, "g", tokens),
        (path, "", tokens),
        (path, "g", {}),
        (path, "g", {"a": "b\r\n"}),
    ):
        with pytest.raises(MoatError):
            CaptureToken(match, grant, {}, fields)


def test_an_answer_instead_has_a_body_that_can_be_sent() -> None:
    assert Instead(200, "{}").content_type == "application/json"
    for status, kind in ((199, "a/b"), (204, "a/b"), (206, "a/b"), (304, "a/b"), (600, "a/b"), (200, "a/b\r\nX: y")):
        with pytest.raises(MoatError):
            Instead(status, "{}", kind)


def test_what_cannot_be_rewritten_is_passed_or_refused() -> None:
    assert RewriteResponse(MATCH, Rewriter("loud")).otherwise == "pass"
    with pytest.raises(MoatError):
        RewriteResponse(MATCH, Rewriter("loud"), otherwise="drop")  # type: ignore[arg-type] # that is the claim


def test_only_the_placeholder_is_asked_for_in_a_header_or_the_query() -> None:
    assert OnlyPlaceholder(MATCH, "X-Key", "moat-placeholder").where == "header"
    for name, placeholder, where in (
        ("", "moat-placeholder", "header"),
        ("k", "short", "query"),
        ("k", "moat-placeholder", "body"),
    ):
        with pytest.raises(MoatError):
            OnlyPlaceholder(MATCH, name, placeholder, where)  # type: ignore[arg-type] # that is the claim
