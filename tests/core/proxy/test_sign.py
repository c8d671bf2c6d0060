from __future__ import annotations

import hashlib

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import Match, ReplaceToken, Sign
from moat.api.signing import Signed
from moat.proxy.refusal import Refusal
from moat.proxy.sign import DigestTask, sign_task, with_signature
from moat.proxy.substitute import Applied, BodyTask, substitute

S3 = Authority("https", "b.s3.aws.example", 443)
RULE = Sign(Match("*.aws.example"), "aws", "x-digest", limit_bytes=10)
NOTHING = hashlib.sha256().hexdigest()


def a_head(*headers: tuple[str, str], authority: Authority = S3) -> RequestHead:
    return RequestHead("PUT", authority, "/a?b", Headers(headers))


def test_a_request_without_a_body_is_signed_for_that() -> None:
    sign, body = sign_task([RULE], a_head(("X", "y")), None, has_body=False)

    assert sign is not None
    assert body is None
    unsigned = sign.unsigned("run_1", a_head(("X", "y"), ("Host", "other")))
    assert (unsigned.authority, unsigned.target, unsigned.body_sha256) == ("b.s3.aws.example", "/a?b", NOTHING)
    assert unsigned.headers.items == (("Host", "b.s3.aws.example"), ("X", "y"))


def test_a_body_is_held_for_its_digest_and_leaves_as_it_came() -> None:
    sign, body = sign_task([RULE], a_head(), None, has_body=True)

    assert sign is not None
    assert isinstance(body, DigestTask)
    assert (body.limit_bytes, body.apply(b"abc")) == (10, Applied(b"abc"))
    assert sign.unsigned("run_1", a_head()).body_sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_body_that_is_too_long_to_be_held_is_refused() -> None:
    _, body = sign_task([RULE], a_head(), None, has_body=True)

    assert body is not None
    with pytest.raises(Refusal) as refusal:
        body.give_up()
    assert refusal.value.status == 413


def test_a_body_of_which_the_client_says_what_it_is_passes_as_it_comes() -> None:
    sign, body = sign_task([RULE], a_head(("X-Digest", "abc")), None, has_body=True)

    assert sign is not None
    assert body is None
    assert sign.unsigned("run_1", a_head()).body_sha256 == ""


def replacing(head: RequestHead) -> BodyTask:
    rule = ReplaceToken(Match("b.s3.aws.example"), "placeholder", "s3cr3t", ("body",), grant="g")
    task = substitute([rule], head, has_body=True).body
    assert task is not None
    return task


def test_what_is_signed_is_the_body_as_it_leaves() -> None:
    head = a_head(("Content-Type", "application/json"))
    sign, body = sign_task([Sign(Match("*.aws.example"), "aws")], head, replacing(head), has_body=True)

    assert sign is not None
    assert body is not None
    assert body.apply(b'"placeholder"') == Applied(b'"s3cr3t"', ("g",), 1)
    assert sign.unsigned("run_1", head).body_sha256 == hashlib.sha256(b'"s3cr3t"').hexdigest()


def test_a_body_that_the_client_has_signed_is_not_changed() -> None:
    head = a_head(("Content-Type", "application/json"), ("X-Digest", "abc"))

    with pytest.raises(Refusal, match="would be changed"):
        sign_task([RULE], head, replacing(head), has_body=True)


@pytest.mark.parametrize(
    "rule", [Sign(Match("*.aws.example", methods=("GET",)), "aws"), Sign(Match("*.aws.example", paths=("/x",)), "aws")]
)
def test_a_rule_that_is_for_other_requests_signs_nothing(rule: Sign) -> None:
    assert sign_task([rule], a_head(), None, has_body=True) == (None, None)


def test_nothing_is_signed_in_clear() -> None:
    head = a_head(authority=Authority("http", "b.s3.aws.example", 80))

    assert sign_task([RULE], head, None, has_body=True) == (None, None)


def test_a_signature_replaces_what_the_client_sent() -> None:
    head = a_head(("authorization", "mine"), ("Date", "then"), ("X", "y"))

    head = with_signature(head, Signed("/a?b&c", (("Authorization", "s3cr3t"), ("X-Date", "now")), ("date",)))

    assert head.target == "/a?b&c"
    assert head.headers.items == (("Authorization", "s3cr3t"), ("X", "y"), ("X-Date", "now"))
