from __future__ import annotations

import pytest
from moat.api import GrantFailed, Match, OnlyPlaceholder, SetHeader, TokenProvider, clean_token, rejection
from moat.api.tokens import MAX_TOKEN_CHARS
from moat.testing import FakeHost, ProviderContract

CHECK = "https://api.search.example.com/check"


class Search(TokenProvider):
    name, summary = "search", "a search service"
    hosts = ("api.search.example.com", "cdn.search.example.com")
    header, prefix = "X-Subscription-Token", ""
    variables = ("SEARCH_API_KEY", "SEARCH_KEY")
    question = "Search API key"
    check_url = CHECK
    check_headers = (("Accept", "application/json"),)


class TestSearch(ProviderContract):
    provider = Search()
    secret = "key-s3cr3t"
    check_url = CHECK


class Unchecked(TokenProvider):
    name, summary = "unchecked", "a service without a check"
    hosts = ("api.example.com",)
    question = "token"


class TestUnchecked(ProviderContract):
    provider = Unchecked()
    secret = "key-s3cr3t"


async def test_the_first_variable_that_is_set_wins_and_is_the_source() -> None:
    host = FakeHost(env={"SEARCH_API_KEY": " ", "SEARCH_KEY": "s3cr3t-2\n"}, responses={CHECK: 200})

    credential = await Search().grant(host)

    assert (credential.secret, credential.source) == ("s3cr3t-2", "SEARCH_KEY")
    assert host.asked == []


async def test_without_a_variable_it_asks() -> None:
    host = FakeHost(answers=["s3cr3t-3"], responses={CHECK: 204})

    assert (await Search().grant(host)).source == "prompt"
    assert host.asked == ["Search API key"]


async def test_the_check_carries_the_header_and_the_extra_ones() -> None:
    host = FakeHost(responses={CHECK: 200})

    await Search().accept("s3cr3t-4", host)

    headers = {"Accept": "application/json", "X-Subscription-Token": "s3cr3t-4", "User-Agent": "moat"}
    assert dict(host.fetched[0].headers) == headers


async def test_it_is_spent_on_every_host_and_a_placeholder_stands_in_every_variable() -> None:
    credential = await Search().accept("s3cr3t-5", FakeHost(validate=False))

    assert Search().rules(credential) == [
        SetHeader(Match(host), "X-Subscription-Token", "s3cr3t-5", "search") for host in Search.hosts
    ]
    assert Search().container(credential).env == dict.fromkeys(Search.variables, "moat-placeholder")


def test_a_token_is_stripped() -> None:
    assert clean_token("\t s3cr3t \r\n", "search") == "s3cr3t"


def test_a_file_pasted_by_mistake_is_no_token() -> None:
    assert clean_token("x" * MAX_TOKEN_CHARS, "search")
    with pytest.raises(GrantFailed, match="too long"):
        clean_token("x" * (MAX_TOKEN_CHARS + 1), "search")


def test_a_rejected_token_and_a_failing_service_have_different_hints() -> None:
    assert "make a new token" in rejection("search", "prompt", 401).hint
    assert "--no-validate" in rejection("search", "prompt", 503).hint


class Careful(Search):
    require = True


class TestCareful(ProviderContract):
    provider = Careful()
    secret = "key-s3cr3t"
    check_url = CHECK


async def test_a_provider_may_refuse_keys_of_the_runs_own() -> None:
    credential = await Careful().accept("s3cr3t-6", FakeHost(validate=False))

    assert list(Careful().rules(credential)) == [
        *Search().rules(credential),
        *(
            OnlyPlaceholder(Match(host), "X-Subscription-Token", "moat-placeholder", grant="search")
            for host in Search.hosts
        ),
    ]
