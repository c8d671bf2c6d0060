from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs

import pytest
from moat.api.http import Authority, Headers, RequestHead
from moat.api.rules import Match, Place, ReplaceToken
from moat.proxy.refusal import Refusal
from moat.proxy.substitute import Applied, BodyTask, Substituted, substitute

API = Authority("https", "api.example.com", 443)
HERE = "moat-placeholder"
SECRET = 's3cr3t/"+ x'
JSON = ("Content-Type", "application/json; charset=utf-8")
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def a_rule(
    *where: Place, require: bool = False, limit: int = 1000, placeholder: str = HERE, value: str = SECRET
) -> ReplaceToken:
    return ReplaceToken(Match("api.example.com"), placeholder, value, where or ("header",), limit, require, "g")


def ask(
    rule: ReplaceToken, target: str = "/", *headers: tuple[str, str], has_body: bool = False, authority: Authority = API
) -> Substituted:
    return substitute([rule], RequestHead("POST", authority, target, Headers(headers)), has_body=has_body)


def task(rule: ReplaceToken, *headers: tuple[str, str]) -> BodyTask:
    found = ask(rule, "/", *headers, has_body=True).body
    assert found is not None
    return found


def test_it_is_replaced_in_the_places_named() -> None:
    done = ask(a_rule("header", "path", "query"), f"/bot{HERE}/x?k={HERE}&{HERE}", ("X-Key", f"a {HERE}"))

    assert done.head.target == "/bots3cr3t%2F%22%2B%20x/x?k=s3cr3t%2F%22%2B%20x&s3cr3t%2F%22%2B%20x"
    assert done.head.headers.items == (("X-Key", f"a {SECRET}"),)
    assert (done.grants, done.secrets) == (("g",), (SECRET,))


@pytest.mark.parametrize("where", ["header", "path", "query", "body"])
def test_elsewhere_it_stays_a_placeholder(where: Place) -> None:
    before = RequestHead("POST", API, f"/{HERE}?{HERE}", Headers((("X-Key", HERE),)))
    after = substitute([a_rule(where)], before, has_body=False).head
    changed = {
        "header": after.headers != before.headers,
        "path": after.path != before.path,
        "query": after.target.partition("?")[2] != HERE,
    }

    assert {place for place, is_changed in changed.items() if is_changed} == {where} - {"body"}


def test_it_is_found_in_the_pair_of_basic() -> None:
    pair = base64.b64encode(f"user:{HERE}".encode()).decode()
    done = ask(a_rule(), "/", ("Authorization", f"Basic {pair}"))
    value = done.head.headers.get("Authorization") or ""

    assert base64.b64decode(value.removeprefix("Basic ")) == f"user:{SECRET}".encode()
    assert ask(a_rule(), "/", ("Authorization", "Basic !!!")).grants == ()


def test_nothing_is_replaced_on_plain_http_or_in_what_frames_a_request() -> None:
    assert ask(a_rule(), "/", ("X", HERE), authority=Authority("http", "api.example.com", 80)).secrets == ()
    assert ask(a_rule(), "/", ("Connection", HERE)).secrets == ()


def test_a_json_body_stays_json() -> None:
    applied = task(a_rule("body"), JSON).apply(json.dumps({"key": HERE, "again": f"x{HERE}"}).encode())

    assert json.loads(applied.body) == {"key": SECRET, "again": f"x{SECRET}"}
    assert (applied.grants, applied.count) == (("g",), 1)


def test_a_form_stays_a_form() -> None:
    applied = task(a_rule("body"), FORM).apply(f"a=b&key={HERE}".encode())

    assert parse_qs(applied.body.decode()) == {"a": ["b"], "key": [SECRET]}


def test_a_body_without_the_placeholder_is_as_it_was() -> None:
    assert task(a_rule("body"), JSON).apply(b'{"a": 1}') == Applied(b'{"a": 1}')


@pytest.mark.parametrize("coding", ["gzip", "br", "x"])
def test_a_compressed_body_is_refused(coding: str) -> None:
    with pytest.raises(Refusal) as refused:
        task(a_rule("body"), JSON, ("Content-Encoding", coding))

    assert refused.value.status == 415


def test_a_body_of_another_kind_is_left_alone_unless_it_must_hold_the_placeholder() -> None:
    multipart = ("Content-Type", "multipart/form-data; boundary=x")
    task(a_rule("body"), multipart).give_up()
    with pytest.raises(Refusal) as refused:
        task(a_rule("body", require=True), multipart).give_up()

    assert task(a_rule("body"), multipart).limit_bytes == 0
    assert refused.value.status == 415


def test_a_body_that_is_too_large_is_left_alone_unless_it_must_hold_the_placeholder() -> None:
    task(a_rule("body"), JSON).give_up()
    with pytest.raises(Refusal) as refused:
        task(a_rule("body", require=True, limit=77), JSON).give_up()

    assert refused.value.status == 413
    assert "77" in refused.value.reason


def test_a_request_that_must_hold_the_placeholder_and_does_not_is_denied() -> None:
    with pytest.raises(Refusal) as in_head:
        ask(a_rule(require=True), "/", ("Authorization", "Bearer s3cr3t-own-key"))
    with pytest.raises(Refusal) as in_body:
        task(a_rule("body", require=True), JSON).apply(b'{"key": "s3cr3t-own-key"}')
    with pytest.raises(Refusal):
        ask(a_rule("body", require=True))

    assert {in_head.value.status, in_body.value.status} == {403}
    assert "s3cr3t" not in in_head.value.reason + in_body.value.reason
    assert ask(a_rule(require=True), "/", ("X", HERE)).grants == ("g",)
    assert task(a_rule("body", require=True), JSON).apply(HERE.encode()).grants == ("g",)


def test_one_place_is_enough_where_several_are_named() -> None:
    done = ask(a_rule("header", "body", require=True), "/", ("X", HERE), JSON, has_body=True)

    assert done.body is not None
    assert done.body.apply(b"{}") == Applied(b"{}")
