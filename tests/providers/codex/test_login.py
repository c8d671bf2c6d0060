from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from moat.api import CapturedTokens, GrantFailed, HttpResponse
from moat_provider_codex.login import Login, captured, end_of, read_claims, read_login, renewed, renewing, stored

END = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.s3cr3t"


CLAIMS = {"https://api.openai.com/auth": {"chatgpt_plan_type": "pro", "chatgpt_account_id": "acct-1"}}
TOKENS = {"id_token": a_jwt(**CLAIMS), "access_token": a_jwt(exp=END.timestamp()), "refresh_token": "r-s3cr3t"}
LOGIN = Login(TOKENS["access_token"], "r-s3cr3t", END, {"account": "acct-1", "plan": "pro"})


def a_file(**changes: object) -> str:
    return json.dumps({"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": {**TOKENS, **changes}})


def test_codexs_own_file_is_a_login_whose_account_is_named_or_claimed() -> None:
    assert read_login(a_file()) == LOGIN
    assert read_login(a_file(account_id="acct-2")).metadata["account"] == "acct-2"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"OPENAI_API_KEY": "sk-s3cr3t"}', "run: moat grant openai"),
        ("", "moat grant codex"),
        ("[]", "moat grant codex"),
        ("sk-s3cr3t", "moat grant codex"),
        ('{"tokens": {"access_token": "s3cr3t"}}', "moat grant codex"),
        (a_file(id_token=None), "moat grant codex"),
        (a_file(access_token="s3cr3t with spaces"), "moat grant codex"),
    ],
)
def test_anything_else_is_refused_with_what_to_type_and_not_repeated(text: str, hint: str) -> None:
    with pytest.raises(GrantFailed) as refused:
        read_login(text)

    assert hint in refused.value.hint
    assert "s3cr3t" not in refused.value.problem


def test_it_comes_back_from_the_store_and_shows_nothing() -> None:
    credential = LOGIN.credential("prompt")

    assert stored(credential) == LOGIN
    assert "s3cr3t" not in repr((credential, LOGIN))


def test_a_renewal_spends_the_refresh_token_and_brings_what_the_answer_has() -> None:
    new = a_jwt(exp=END.timestamp() + 60)
    body = json.dumps({"access_token": new, "refresh_token": "r-2", "id_token": "i"}).encode()

    login = renewed(LOGIN, HttpResponse(200, {}, body))

    assert json.loads(renewing(LOGIN).body)["refresh_token"] == "r-s3cr3t"
    assert (login.access, login.refresh, login.metadata) == (new, "r-2", LOGIN.metadata)
    assert login.expires_at == datetime(2031, 1, 2, 3, 5, 5, tzinfo=UTC)
    assert captured(LOGIN, CapturedTokens({"access_token": "a"})).refresh == "r-s3cr3t"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"access_token": 1}', b'{"refresh_token": "r"}'])
def test_an_answer_that_makes_no_sense_keeps_the_old_login(body: bytes) -> None:
    with pytest.raises(GrantFailed):
        renewed(LOGIN, HttpResponse(200, {}, body))


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "a.e30.c", a_jwt(exp="soon"), a_jwt(exp=1e999), "a.W10.c"])
def test_a_token_that_says_nothing_of_its_end_has_none(token: str) -> None:
    assert end_of(token) is None
    assert isinstance(read_claims(token), dict)
