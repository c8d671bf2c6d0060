from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api import (
    AddHeader,
    CaptureToken,
    CommandResult,
    Credential,
    GrantFailed,
    GrantRevoked,
    HttpResponse,
    RemoveHeader,
    ReplaceToken,
    RewriteResponse,
    SetHeader,
)
from moat.testing import FakeHost, ProviderContract
from moat_provider_claude import placeholders
from moat_provider_claude.claude import CHECK_URL, KEYCHAIN, Claude
from moat_provider_claude.login import TOKEN_URL, stored

TOKEN = "sk-ant-oat01-s3cr3t"
FILE = json.dumps(
    {"claudeAiOauth": {"accessToken": TOKEN, "refreshToken": "sk-ant-ort01-s3cr3t", "expiresAt": 4_102_444_800_000}}
)
NEW = HttpResponse(
    200, {}, json.dumps({"access_token": "oat-s3cr3t-2", "refresh_token": "ort-s3cr3t-2", "expires_in": 60}).encode()
)
OWN = Path("/home/you/.claude/.credentials.json")


class TestClaude(ProviderContract):
    provider = Claude()
    secret = FILE


async def accepted(secret: str) -> Credential:
    return await Claude().accept(secret, FakeHost(validate=False))


def a_host(*, confirms: bool = True, env: dict[str, str] | None = None, **more: object) -> FakeHost:
    host = FakeHost(env={"HOME": "/home/you", **(env or {})}, responses={CHECK_URL: 400}, confirms=[confirms])
    for name, value in more.items():
        setattr(host, name, value)
    return host


async def test_a_variable_comes_first() -> None:
    credential = await Claude().grant(a_host(env={"CLAUDE_CODE_OAUTH_TOKEN": TOKEN}, files={OWN: FILE.encode()}))

    assert (credential.source, stored(credential).access) == ("CLAUDE_CODE_OAUTH_TOKEN", TOKEN)


async def test_claude_codes_own_login_is_taken_when_the_user_agrees_who_is_told_what_it_means() -> None:
    host = a_host(files={OWN: FILE.encode()})

    credential = await Claude().grant(host)

    assert credential.source == str(OWN)
    assert "Claude Code outside may ask you to log in again" in host.said[0]


async def test_the_keychain_is_looked_at_where_there_is_one() -> None:
    credential = await Claude().grant(a_host(commands={KEYCHAIN: CommandResult(0, FILE + "\n", "")}))

    assert credential.source == "the Keychain"


async def test_else_a_token_is_pasted() -> None:
    host = a_host(files={OWN: FILE.encode()}, confirms=False, answers=[TOKEN])

    credential = await Claude().grant(host)

    assert credential.source == "claude setup-token"
    assert "claude setup-token" in host.said[0]


async def test_the_check_is_a_message_without_content_which_costs_nothing() -> None:
    host = a_host()

    await Claude().accept(TOKEN, host)

    (request,) = host.fetched
    assert (request.url, request.body) == (CHECK_URL, b"{}")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "x-api-key" not in request.headers


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_login_that_is_not_accepted_is_not_saved(status: int) -> None:
    with pytest.raises(GrantFailed, match="nothing was saved") as refused:
        await Claude().accept(TOKEN, a_host(responses={CHECK_URL: status}))

    assert "s3cr3t" not in refused.value.problem + refused.value.hint


async def test_an_imported_login_that_is_over_is_renewed_before_it_is_checked() -> None:
    old = FILE.replace("4102444800000", "1000")
    host = a_host(responses={CHECK_URL: 400, TOKEN_URL: NEW})

    credential = await Claude().accept(old, host)

    assert stored(credential).access == "oat-s3cr3t-2"
    assert host.fetched[1].headers["Authorization"] == "Bearer oat-s3cr3t-2"


async def test_a_login_is_sent_in_place_of_the_clients_and_never_beside_a_key() -> None:
    rules = Claude().rules(await accepted(TOKEN))

    heads = [rule for rule in rules if isinstance(rule, SetHeader | AddHeader | RemoveHeader)]
    assert [(type(rule).__name__, rule.name) for rule in heads] == [
        ("SetHeader", "Authorization"),
        ("RemoveHeader", "x-api-key"),
        ("AddHeader", "anthropic-beta"),
    ]
    assert {rule.match.when_header for rule in heads} == {"Authorization"}


async def test_only_a_login_that_can_be_renewed_meets_the_token_endpoint() -> None:
    fixed, renewable = Claude().rules(await accepted(TOKEN)), Claude().rules(await accepted(FILE))

    assert not [rule for rule in fixed if isinstance(rule, ReplaceToken | CaptureToken)]
    captures = [rule for rule in renewable if isinstance(rule, CaptureToken)]
    assert [rule.match.authority for rule in captures] == ["platform.claude.com", "console.anthropic.com"]
    assert captures[0].request["refresh_token"] == placeholders.REFRESH


async def test_what_a_token_may_not_ask_is_answered_for_it() -> None:
    rewrites = [rule for rule in Claude().rules(await accepted(TOKEN)) if isinstance(rule, RewriteResponse)]

    assert [(rule.match.paths, rule.statuses) for rule in rewrites] == [
        (("/api/oauth/profile",), (403,)),
        (("/api/oauth/usage",), (403,)),
    ]


async def test_a_renewal_keeps_what_is_known_and_the_new_pair() -> None:
    before = await accepted(FILE)

    after = await Claude().refresh(before, FakeHost(responses={TOKEN_URL: NEW}))

    assert (stored(after).access, stored(after).refresh) == ("oat-s3cr3t-2", "ort-s3cr3t-2")
    assert (after.source, after.metadata) == (before.source, before.metadata)


@pytest.mark.parametrize(("status", "error"), [(400, GrantRevoked), (401, GrantRevoked), (500, GrantFailed)])
async def test_a_renewal_that_is_refused_says_for_how_long(status: int, error: type[GrantFailed]) -> None:
    with pytest.raises(GrantFailed) as refused:
        await Claude().refresh(await accepted(FILE), FakeHost(responses={TOKEN_URL: status}))

    assert type(refused.value) is error


async def test_a_token_that_cannot_be_renewed_is_asked_about() -> None:
    credential = await accepted(TOKEN)

    assert await Claude().refresh(credential, FakeHost(responses={CHECK_URL: 400})) == credential
    with pytest.raises(GrantRevoked) as refused:
        await Claude().refresh(credential, FakeHost(responses={CHECK_URL: 401}))
    assert refused.value.hint == "run: moat grant claude"
