from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api import CaptureToken, Credential, GrantFailed, GrantRevoked, HttpResponse, ReplaceToken, SetHeader
from moat.testing import FakeHost, ProviderContract
from moat_provider_codex import placeholders
from moat_provider_codex.codex import CHECK_URL, Codex
from moat_provider_codex.login import TOKEN_URL, stored

from providers.codex.test_login import a_file, a_jwt

OWN = Path("/home/you/.codex/auth.json")
NEW = HttpResponse(200, {}, json.dumps({"access_token": "new-s3cr3t", "refresh_token": "r-s3cr3t-2"}).encode())


class TestCodex(ProviderContract):
    provider = Codex()
    secret = a_file()


async def accepted() -> Credential:
    return await Codex().accept(a_file(), FakeHost(validate=False))


def a_host(confirms: bool = True, status: int = 200, **files: str) -> FakeHost:
    env = {"HOME": "/home/you", **({"CODEX_HOME": "/elsewhere"} if "elsewhere" in files else {})}
    found = {OWN: files["own"].encode()} if "own" in files else {}
    found |= {Path("/elsewhere/auth.json"): files["elsewhere"].encode()} if "elsewhere" in files else {}
    return FakeHost(env=env, files=found, confirms=[confirms], responses={CHECK_URL: status})


async def test_codexs_own_login_is_taken_when_the_user_agrees_who_is_told_what_it_means() -> None:
    host = a_host(own=a_file())

    credential = await Codex().grant(host)

    assert (credential.source, credential.metadata) == (str(OWN), {"account": "acct-1", "plan": "pro"})
    assert "Codex outside may ask you to log in again" in host.said[0]


async def test_it_is_found_where_codex_was_told_to_keep_it() -> None:
    assert (await Codex().grant(a_host(elsewhere=a_file()))).source == "/elsewhere/auth.json"


@pytest.mark.parametrize(
    ("confirms", "files", "hint"), [(True, {}, "codex login"), (False, {"own": a_file()}, "say yes")]
)
async def test_without_a_login_or_a_yes_nothing_is_saved(confirms: bool, files: dict[str, str], hint: str) -> None:
    with pytest.raises(GrantFailed) as refused:
        await Codex().grant(a_host(confirms, 200, **files))

    assert hint in refused.value.hint


async def test_the_check_names_the_account_and_a_401_is_a_no() -> None:
    host = a_host()

    await Codex().accept(a_file(), host)

    assert host.fetched[0].headers["ChatGPT-Account-ID"] == "acct-1"
    with pytest.raises(GrantFailed, match="nothing was saved"):
        await Codex().accept(a_file(), a_host(status=401))


async def test_what_stands_before_the_service_may_turn_the_check_away() -> None:
    host = a_host(status=403)

    assert await Codex().accept(a_file(), host)
    assert "HTTP 403, so it is not known yet" in host.said[0]


async def test_an_imported_login_that_is_over_is_renewed_before_it_is_checked() -> None:
    host = FakeHost(responses={CHECK_URL: 200, TOKEN_URL: NEW})

    credential = await Codex().accept(a_file(access_token=a_jwt(exp=1000)), host)

    assert stored(credential).access == "new-s3cr3t"
    assert host.fetched[1].headers["Authorization"] == "Bearer new-s3cr3t"


async def test_a_login_is_sent_with_its_account_where_the_client_sends_one() -> None:
    rules = [rule for rule in Codex().rules(await accepted()) if isinstance(rule, SetHeader)]

    assert [(rule.match.authority, rule.match.when_header, rule.name) for rule in rules] == [
        ("chatgpt.com", "Authorization", "Authorization"),
        ("chatgpt.com", "Authorization", "ChatGPT-Account-ID"),
    ]
    assert (rules[1].value, rules[1].is_secret) == ("acct-1", False)


async def test_codex_renews_by_itself_with_placeholders_for_all_three_tokens() -> None:
    credential = await accepted()
    rules = Codex().rules(credential)

    (capture,) = [rule for rule in rules if isinstance(rule, CaptureToken)]
    (replace,) = [rule for rule in rules if isinstance(rule, ReplaceToken)]
    assert capture.tokens.keys() == {"access_token", "refresh_token", "id_token"}
    assert capture.tokens["id_token"] == placeholders.identity(credential.metadata)
    assert capture.request["refresh_token"] == replace.placeholder == placeholders.REFRESH


@pytest.mark.parametrize(("status", "error"), [(400, GrantRevoked), (401, GrantRevoked), (500, GrantFailed)])
async def test_a_renewal_that_is_refused_says_for_how_long(status: int, error: type[GrantFailed]) -> None:
    with pytest.raises(GrantFailed) as refused:
        await Codex().refresh(await accepted(), FakeHost(responses={TOKEN_URL: status}))

    assert type(refused.value) is error


async def test_a_renewal_keeps_the_account_and_the_new_pair() -> None:
    after = await Codex().refresh(await accepted(), FakeHost(responses={TOKEN_URL: NEW}))

    assert (stored(after).access, stored(after).refresh) == ("new-s3cr3t", "r-s3cr3t-2")
    assert after.metadata["account"] == "acct-1"
