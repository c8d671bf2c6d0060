from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from moat.api.http import Headers, ResponseHead
from moat.api.rules import Instead, Match, Rewriter, RewriteResponse
from moat.proxy.refusal import Refusal
from moat.proxy.rewrite import MARK, MAX_BODY_BYTES, rewritten

MATCH = Match("api.example.com")
HEAD = ResponseHead(
    403,
    Headers((("Content-Type", "text/html"), ("ETag", '"1"'), ("content-length", "9"), ("X-Request-Id", "7"),
             ("Digest", "x"), ("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))),
    "Forbidden",
)  # fmt: skip


def nobody(name: str) -> Callable[..., Any]:
    raise AssertionError(name)


def with_function(function: Callable[..., Any]) -> tuple[ResponseHead, bytes]:
    rule = RewriteResponse(MATCH, Rewriter("loud", {"sign": "!"}), grant="g")
    return rewritten(rule, HEAD, b"body", lambda name: {"loud": function}[name])


def test_another_answer_takes_the_place_of_this_one() -> None:
    rule = RewriteResponse(MATCH, Instead(200, '{"id": ""}'), grant="claude")
    head, body = rewritten(rule, HEAD, b"ignored", nobody)

    assert (head.status, head.reason, body) == (200, "OK", b'{"id": ""}')
    assert head.headers.items == (("Content-Type", "application/json"), ("X-Request-Id", "7"), (MARK, "claude"))


def test_a_function_is_given_head_body_and_parameters() -> None:
    def loud(head: ResponseHead, body: bytes, parameters: Mapping[str, str]) -> tuple[ResponseHead, bytes]:
        assert "Content-Encoding" not in head.headers
        return ResponseHead(200, head.headers.with_set("X-Loud", "yes")), body.upper() + parameters["sign"].encode()

    head, body = with_function(loud)

    assert (head.status, head.reason, body) == (200, "OK", b"BODY!")
    assert dict(head.headers)["X-Loud"] == "yes"
    assert dict(head.headers)[MARK] == "g"


@pytest.mark.parametrize(
    "function",
    [
        lambda head, body, parameters: 1 / 0,
        lambda head, body, parameters: None,
        lambda head, body, parameters: (ResponseHead(204), b""),
        lambda head, body, parameters: (ResponseHead(99), b""),
        lambda head, body, parameters: (ResponseHead(200, Headers((("X", "a\r\nY: b"),))), b""),
        lambda head, body, parameters: (ResponseHead(200, Headers((("X Y", "a"),))), b""),
        lambda head, body, parameters: (head, "text"),
        lambda head, body, parameters: (_ for _ in ()).throw(RuntimeError("s3cr3t")),
    ],
    ids=["raises", "nothing", "no body", "no status", "two lines", "no name", "text", "quotes"],
)
def test_a_function_that_fails_is_a_502_that_quotes_nothing(function: Callable[..., Any]) -> None:
    with pytest.raises(Refusal) as refused:
        with_function(function)

    assert (refused.value.status, refused.value.kind) == (502, "rewrite")
    assert "loud" in refused.value.reason
    assert "s3cr3t" not in refused.value.reason


def test_a_function_that_is_not_there_is_a_502() -> None:
    with pytest.raises(Refusal) as refused:
        rewritten(RewriteResponse(MATCH, Rewriter("gone")), HEAD, b"", nobody)

    assert refused.value.status == 502


def test_a_function_cannot_fill_memory() -> None:
    with pytest.raises(Refusal):
        with_function(lambda head, body, parameters: (head, b"x" * (MAX_BODY_BYTES + 1)))


def test_a_function_cannot_say_how_the_body_is_framed() -> None:
    framed = Headers((("Content-Length", "999"), ("Content-Encoding", "br")))
    head, _ = with_function(lambda head, body, parameters: (ResponseHead(200, framed), b"x"))

    assert head.headers.items == ((MARK, "g"),)
