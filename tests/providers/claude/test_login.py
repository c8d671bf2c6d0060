from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from moat.api import CapturedTokens, GrantFailed, HttpResponse
from moat_provider_claude.login import Login, captured, read_login, renewed, renewing, stored

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LOGIN = Login("sk-ant-oat01-s3cr3t", "sk-ant-ort01-s3cr3t", NOW, {"scopes": "user:inference", "subscription": "pro"})
FILE = {
    "claudeAiOauth": {
        "accessToken": "sk-ant-oat01-s3cr3t",
        "refreshToken": "sk-ant-ort01-s3cr3t",
        "expiresAt": NOW.timestamp() * 1000,
        "scopes": ["user:inference"],
        "subscriptionType": "pro",
    },
    "mcpOAuth": {"other": "s3cr3t"},
}


def answer(**fields: object) -> HttpResponse:
    return HttpResponse(200, {}, json.dumps(fields).encode())


def test_a_token_is_a_login_without_a_refresh_token() -> None:
    login = read_login(" sk-ant-oat01-s3cr3t\n")

    assert (login.access, login.refresh, login.expires_at) == ("sk-ant-oat01-s3cr3t", "", None)


def test_a_credentials_file_is_a_login_that_can_be_renewed() -> None:
    assert read_login(json.dumps(FILE)) == LOGIN


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sk-ant-api03-s3cr3t", "run: moat grant anthropic"),
        ("ghp_s3cr3t", "run: claude setup-token"),
        ("", "run: moat grant claude"),
        ('{"claudeAiOauth": {"accessToken": 1}}', "run: moat grant claude"),
        ('{"claudeAiOauth": null}', "run: moat grant claude"),
        ('{"claudeAiOauth": {"accessToken": "s3cr3t with spaces"}}', "run: moat grant claude"),
        ('{"other": "s3cr3t"', "run: moat grant claude"),
    ],
)
def test_anything_else_is_refused_with_what_to_type_and_not_repeated(text: str, hint: str) -> None:
    with pytest.raises(GrantFailed) as refused:
        read_login(text)

    assert refused.value.hint == hint
    assert "s3cr3t" not in refused.value.problem


def test_it_comes_back_from_the_store_and_shows_nothing() -> None:
    credential = LOGIN.credential("prompt")

    assert stored(credential).access == LOGIN.access
    assert stored(credential).refresh == LOGIN.refresh
    assert credential.metadata["renewable"] == "yes"
    assert "s3cr3t" not in repr((credential, LOGIN))


def test_a_renewal_spends_the_refresh_token_and_brings_a_new_pair() -> None:
    request = renewing(LOGIN)
    login = renewed(LOGIN, answer(access_token="a-2", refresh_token="r-2", expires_in=60), NOW)

    assert json.loads(request.body)["refresh_token"] == "sk-ant-ort01-s3cr3t"
    assert "s3cr3t" not in repr(request)
    assert (login.access, login.refresh) == ("a-2", "r-2")
    assert login.expires_at == datetime(2030, 1, 2, 3, 5, 5, tzinfo=UTC)
    assert login.metadata == LOGIN.metadata


def test_an_answer_without_a_new_refresh_token_leaves_the_old_one() -> None:
    assert renewed(LOGIN, answer(access_token="a-2", expires_in=60), NOW).refresh == LOGIN.refresh
    assert captured(LOGIN, CapturedTokens({"access_token": "a-2"})).refresh == LOGIN.refresh


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"access_token": "a"}', b'{"access_token": 1, "expires_in": 1}', b'{"expires_in": 1}',
     b'{"access_token": "a", "expires_in": 1e999}'],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_keeps_the_old_login(body: bytes) -> None:
    with pytest.raises(GrantFailed):
        renewed(LOGIN, HttpResponse(200, {}, body), NOW)


def test_a_captured_answer_without_an_access_token_is_refused() -> None:
    with pytest.raises(GrantFailed):
        captured(LOGIN, CapturedTokens({"refresh_token": "r"}))
