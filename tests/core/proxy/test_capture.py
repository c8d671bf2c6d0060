from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers, ResponseHead
from moat.api.rules import CaptureToken, Match
from moat.proxy.capture import Caught, caught, demanded, is_readable
from moat.proxy.refusal import Refusal

ACCESS, REFRESH = "moat-access-placeholder", "moat-refresh-placeholder"
RULE = CaptureToken(
    Match("api.example.com", ("POST",), ("/token",)),
    "g",
    {"grant_type": "refresh_token", "refresh_token": REFRESH},
    {"access_token": ACCESS, "refresh_token": REFRESH, "user.access_token": "moat-user-placeholder"},
    ("id_token",),
)
JSON, FORM = "application/json; charset=utf-8", "application/x-www-form-urlencoded"


def as_kind(kind: str) -> Headers:
    return Headers((("Content-Type", kind),))


def catch(fields: Any, kind: str = JSON, status: int = 200) -> Caught:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return caught(RULE, ResponseHead(status, as_kind(kind)), body)


def refused(fields: Any, kind: str = JSON, status: int = 200) -> str:
    with pytest.raises(Refusal) as refusal:
        catch(fields, kind, status)
    assert (refusal.value.status, refusal.value.kind) == (502, "capture")
    assert "s3cr3t" not in refusal.value.reason
    return refusal.value.reason


def test_tokens_are_taken_out_and_placeholders_put_in() -> None:
    found = catch({"access_token": "s3cr3t-a", "refresh_token": "s3cr3t-r", "expires_in": 3600, "scope": "x",
                   "user": {"id": 1, "access_token": "s3cr3t-u"}, "id_token": "a.b.c"})  # fmt: skip

    assert dict(found.tokens) == {
        "access_token": "s3cr3t-a", "refresh_token": "s3cr3t-r", "user.access_token": "s3cr3t-u",
    }  # fmt: skip
    assert json.loads(found.body) == {
        "access_token": ACCESS, "refresh_token": REFRESH, "expires_in": 3600, "scope": "x",
        "user": {"id": 1, "access_token": "moat-user-placeholder"}, "id_token": "a.b.c",
    }  # fmt: skip
    assert found.expires_in == 3600
    assert "s3cr3t" not in repr(found)


def test_a_form_stays_a_form() -> None:
    found = catch(urlencode({"access_token": "s3cr3t-a", "scope": "repo,user", "expires_in": "60"}).encode(), FORM)

    assert parse_qs(found.body.decode()) == {"access_token": [ACCESS], "scope": ["repo,user"], "expires_in": ["60"]}
    assert (dict(found.tokens), found.expires_in) == ({"access_token": "s3cr3t-a"}, 60)


@pytest.mark.parametrize("fields", [{"error": "slow_down"}, {"ok": False, "access_token": None}, {}])
def test_an_answer_without_tokens_is_passed_on(fields: dict[str, object]) -> None:
    found = catch(fields)

    assert (json.loads(found.body), dict(found.tokens)) == (fields, {})


@pytest.mark.parametrize(
    "fields",
    [
        b'{"access_token": "s3cr3t-a", "access_token": "x"}',
        b'{"a": {"b": 1, "b": "s3cr3t"}}',
        b'{"access_token": "s3cr3t-a"',
        b'["s3cr3t"]',
        b'"s3cr3t"',
        b"[" * 100_000,
        b'{"a": ' * 200 + b"1" + b"}" * 200,
        b'{"access_token": "s3cr3t\xff"}',
        {"access_token": 5},
        {"access_token": {"value": "s3cr3t"}},
        {"access_token": "s3cr3t\r\nX: y"},
        {"access_token": "s3cr3t-ü"},
        {"access_token": ""},
        {"access_token": "s3cr3t" * 4000},
        {"access_token": "s3cr3t-a", "accessToken": "s3cr3t-b"},
        {"access_token": "s3cr3t-a", "other": [{"Refresh-Token": "s3cr3t"}]},
        {"user": {"refresh_token": "s3cr3t-u"}},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_what_is_doubtful_is_refused_and_not_quoted(fields: Any) -> None:
    assert refused(fields)


def test_tokens_in_an_error_are_refused() -> None:
    assert "400" in refused({"access_token": "s3cr3t-a"}, status=400)


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "", "application/jwt", "text/json"])
def test_other_kinds_cannot_be_searched(kind: str) -> None:
    assert not is_readable(as_kind(kind))
    assert refused({"access_token": "s3cr3t-a"}, kind)


@given(
    st.dictionaries(
        st.sampled_from(["access_token", "refresh_token", "scope", "note", "ACCESS_TOKEN"]),
        st.text('abcs3cr3t-\\"/+é \n', min_size=1, max_size=30).map(lambda text: f"s3cr3t{text}"),
    )
)
def test_whatever_comes_no_value_of_a_token_field_goes_on(fields: dict[str, str]) -> None:
    try:
        found = catch(fields)
    except Refusal:
        return
    told = json.loads(found.body)

    assert {name: told[name] for name in told if "token" in name.lower()} == {
        name: RULE.tokens[name] for name in found.tokens
    }
    assert dict(found.tokens) == {name: value for name, value in fields.items() if name in RULE.tokens}


@pytest.mark.parametrize("seconds", [0, -5, True, "soon", None, 10**20, [], "9" * 30])
def test_a_strange_lifetime_is_none(seconds: object) -> None:
    assert catch({"access_token": "s3cr3t-a", "expires_in": seconds}).expires_in is None


def asks(body: bytes, kind: str = JSON) -> None:
    demanded(RULE, as_kind(kind), body)


def test_the_request_that_renews_the_grant_is_let_through() -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": "x"}

    asks(json.dumps(fields).encode())
    asks(urlencode(fields).encode(), FORM)
    demanded(CaptureToken(RULE.match, "g", {}, RULE.tokens), as_kind("text/plain"), b"anything")


@pytest.mark.parametrize("said", ["utf-8", '"UTF-8"', "us-ascii"])
def test_letters_that_everybody_reads_alike_are_let_through(said: str) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": REFRESH}

    asks(json.dumps(fields).encode(), f"application/json; charset={said}")
    asks(urlencode(fields).encode(), f"{FORM};charset={said}")


@pytest.mark.parametrize("said", ["charset=utf-7", "charset=utf-16", "x=y; CharSet = utf-8", "charset*=utf-8''utf-7"])
def test_letters_that_a_service_may_read_otherwise_are_denied(said: str) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": REFRESH}

    with pytest.raises(Refusal):
        asks(json.dumps(fields).encode(), f"application/json; {said}")
    with pytest.raises(Refusal):
        demanded(RULE, Headers((("Content-Type", FORM), ("Content-Type", JSON))), urlencode(fields).encode())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"grant_type": "authorization_code", "code": "theirs", "refresh_token": REFRESH}, JSON),
        ({"grant_type": "refresh_token", "refresh_token": "s3cr3t-theirs", "x": REFRESH}, JSON),
        ({"grant_type": ["refresh_token"], "refresh_token": REFRESH}, JSON),
        ({"refresh_token": REFRESH}, JSON),
        (b'{"grant_type": "x", "grant_type": "refresh_token", "refresh_token": "%b"}' % REFRESH.encode(), JSON),
        (f"grant_type=password&grant_type=refresh_token&refresh_token={REFRESH}".encode(), FORM),
        (f"grant_type=refresh_token&refresh_token={REFRESH}".encode(), JSON),
        (f"grant_type=refresh_token&refresh_token={REFRESH}".encode(), "multipart/form-data; boundary=x"),
        (b"", JSON),
    ],
    ids=[
        "a login",
        "their own token",
        "a list",
        "no type",
        "twice",
        "twice in a form",
        "no JSON",
        "multipart",
        "empty",
    ],
)
def test_any_other_request_to_the_token_endpoint_is_denied(body: object, kind: str) -> None:
    with pytest.raises(Refusal) as refusal:
        asks(body if isinstance(body, bytes) else json.dumps(body).encode(), kind)

    assert (refusal.value.status, refusal.value.outcome) == (403, "denied")
    assert "moat grant g" in refusal.value.reason
    assert "s3cr3t" not in refusal.value.reason


@pytest.mark.parametrize(("kind", "told"), [("text/html; x=y", "'text/html'"), ("application/s3cr3t+json", "unusual")])
def test_a_kind_is_told_only_where_it_cannot_be_what_was_sent(kind: str, told: str) -> None:
    assert told in refused(b"?", kind)
