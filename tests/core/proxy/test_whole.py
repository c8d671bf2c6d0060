from __future__ import annotations

import gzip

import pytest
from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.api.rules import CaptureToken, Instead, Match, ReplaceToken, Rewriter, RewriteResponse, Rule
from moat.proxy.http1 import CHUNKED, NO_BODY, Framing, Response
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import Spent
from moat.proxy.whole import Holding, WholeTask, whole_task

API = Authority("https", "api.example.com", 443)
CAPTURE = CaptureToken(Match("api.example.com", ("POST",), ("/oauth/token",)), "g", {}, {"access_token": "moat-access"})
JSON = ("Content-Type", "application/json")


def a_rewrite(limit: int = 100, *, refuse: bool = False, statuses: tuple[int, ...] = ()) -> RewriteResponse:
    return RewriteResponse(
        Match("api.example.com"), Rewriter("x"), statuses, limit_bytes=limit, otherwise="refuse" if refuse else "pass"
    )


def a_response(*headers: tuple[str, str], status: int = 200, framing: Framing = CHUNKED) -> Response:
    fields = {name.lower(): (value,) for name, value in headers}
    return Response(ResponseHead(status, Headers(headers)), framing, fields)


def asked(target: str, *rules: Rule, method: str = "POST", renewed: tuple[str, ...] = ()) -> WholeTask | None:
    return whole_task(rules or (CAPTURE,), RequestHead(method, API, target), Spent(), renewed)


def held(rule: RewriteResponse, *headers: tuple[str, str], status: int = 200, framing: Framing = CHUNKED) -> Holding:
    found = WholeTask((rule,)).holding(a_response(*(headers or (JSON,)), status=status, framing=framing))
    assert found is not None
    return found


def test_most_requests_have_no_task() -> None:
    assert asked("/v1/users") is None
    assert asked("/oauth/token", method="GET") is None
    assert (
        whole_task((a_rewrite(),), RequestHead("GET", Authority("http", "api.example.com", 80), "/"), Spent()) is None
    )


@pytest.mark.parametrize(
    "target",
    ["/oauth/token", "/OAuth/Token", "/oauth/token/", "/oauth/token;v=1", "/oauth/%74oken", "/oauth//token",
     "/x/../oauth/token", "/oauth%2ftoken", "/%6fauth/token?a=b", "/anything/..%2f", "/a;x/../b"],
)  # fmt: skip
def test_a_path_that_some_server_takes_for_the_token_endpoints_is_caught(target: str) -> None:
    task = asked(target)

    assert task is not None
    assert task.capture is CAPTURE


def test_a_request_with_the_grants_placeholder_is_caught_on_any_path() -> None:
    task = asked("/elsewhere", method="PUT", renewed=("g",))

    assert task is not None
    assert task.capture is CAPTURE


def test_requests_that_spend_the_same_token_have_one_key_and_others_another() -> None:
    def key(target: str, secret: str) -> str:
        task = asked(target, CAPTURE, ReplaceToken(CAPTURE.match, "moat-placeholder", secret, ("body",), grant="g"))
        assert task is not None
        return task.key

    assert key("/oauth/token", "s3cr3t-one") == key("/oauth/token", "s3cr3t-one")
    assert (
        len({key("/oauth/token", "s3cr3t-one"), key("/oauth/token", "s3cr3t-two"), key("/oauth/Token", "s3cr3t-one")})
        == 3
    )
    assert "s3cr3t" not in key("/oauth/token", "s3cr3t-one")


@pytest.mark.parametrize(
    ("rule", "headers", "status", "fits"),
    [
        (a_rewrite(statuses=(403,)), (JSON,), 403, True),
        (a_rewrite(statuses=(403,)), (JSON,), 200, False),
        (a_rewrite(), (("Content-Type", "Application/JSON; charset=x"),), 200, True),
        (a_rewrite(), (("Content-Type", "text/html"),), 200, False),
        (RewriteResponse(Match("a"), Rewriter("x"), kinds=()), (("Content-Type", "text/html"),), 200, True),
        (RewriteResponse(Match("a"), Rewriter("x"), kinds=()), (("Content-Type", "text/event-stream"),), 200, False),
        (
            RewriteResponse(Match("a"), Rewriter("x"), kinds=()),
            (("Content-Type", "application/grpc+proto"),),
            200,
            False,
        ),
        (RewriteResponse(Match("a"), Rewriter("x"), kinds=()), (("X", "no kind"),), 200, True),
    ],
)
def test_what_a_rule_does_not_ask_for_streams(
    rule: RewriteResponse, headers: tuple[tuple[str, str], ...], status: int, fits: bool
) -> None:
    assert (WholeTask((rule,)).holding(a_response(*headers, status=status)) is not None) is fits


def test_an_answer_without_a_body_passes() -> None:
    assert WholeTask((a_rewrite(refuse=True),), CAPTURE).holding(a_response(JSON, framing=NO_BODY)) is None


def test_a_body_is_taken_to_its_end() -> None:
    holding = held(a_rewrite())

    assert holding.feed(b"one ")
    assert holding.feed(b"two")
    assert (holding.finish(), bytes(holding.raw)) == (b"one two", b"one two")


def test_an_encoded_body_is_undone_and_kept_as_it_came() -> None:
    packed = gzip.compress(b"x" * 90)
    holding = held(a_rewrite(), JSON, ("Content-Encoding", "gzip"))

    assert all(holding.feed(packed[at : at + 1]) for at in range(len(packed)))
    assert (holding.finish(), bytes(holding.raw)) == (b"x" * 90, packed)


def test_more_than_the_bound_is_not_held_decoded_or_not() -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    encoded = held(a_rewrite(limit=20_000), JSON, ("Content-Encoding", "gzip"))

    assert not held(a_rewrite(limit=5)).feed(b"123456")
    assert not encoded.feed(bomb)
    assert bytes(encoded.raw) == bomb


@pytest.mark.parametrize(
    ("headers", "status", "framing"),
    [
        ((JSON,), 206, CHUNKED),
        ((JSON, ("Content-Encoding", "dcb")), 200, CHUNKED),
        ((JSON,), 200, Framing("length", 101)),
    ],
    ids=["a part", "unknown coding", "too long"],
)
def test_what_cannot_be_held_passes_or_is_refused_as_the_rule_says(
    headers: tuple[tuple[str, str], ...], status: int, framing: Framing
) -> None:
    response = a_response(*headers, status=status, framing=framing)
    with pytest.raises(Refusal) as refused:
        WholeTask((a_rewrite(refuse=True),)).holding(response)
    with pytest.raises(Refusal) as uncaught:
        WholeTask((), CaptureToken(CAPTURE.match, "g", {}, CAPTURE.tokens, limit_bytes=100)).holding(response)

    assert WholeTask((a_rewrite(),)).holding(response) is None
    assert {refused.value.status, uncaught.value.status} == {502}


def test_another_answer_instead_needs_no_body() -> None:
    rule = RewriteResponse(Match("api.example.com"), Instead(200, "{}"), limit_bytes=1, otherwise="refuse")
    holding = held(rule, JSON, ("Content-Encoding", "dcb"), status=206, framing=Framing("length", 10**9))

    assert not holding.is_body_needed
    assert WholeTask((rule,), CAPTURE).holding(a_response(JSON)).is_body_needed  # type: ignore[union-attr] # it is held


def test_of_a_token_endpoint_only_error_pages_of_other_kinds_pass() -> None:
    task, page = WholeTask((), CAPTURE), ("Content-Type", "text/html")

    assert task.holding(a_response(page, status=503)) is None
    with pytest.raises(Refusal):
        task.holding(a_response(page))


@pytest.mark.parametrize(
    "field", [("Content-Type", "x/s3cr3t-token"), ("Content-Encoding", "s3cr3t-token")], ids=["kind", "coding"]
)
def test_a_refusal_quotes_nothing_that_could_be_the_credential(field: tuple[str, str]) -> None:
    task = WholeTask(capture=CAPTURE)
    fields = (field,) if field[0] == "Content-Type" else (JSON, field)

    with pytest.raises(Refusal) as refused:
        task.holding(a_response(*fields))

    assert "s3cr3t" not in refused.value.reason
