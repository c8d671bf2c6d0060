from __future__ import annotations

import base64

import pytest
from moat.api import CommandResult, GrantFailed, SetHeader
from moat.testing import FakeHost, ProviderContract
from moat_provider_github.provider import CHECK_URL, GIT_PATHS, PLACEHOLDER, GitHub

TOKEN = "ghp_s3cr3t0000"
GH = ("gh", "auth", "token")
ACCEPTED = {CHECK_URL: 200}


class TestGitHub(ProviderContract):
    provider = GitHub()
    secret = TOKEN
    check_url = "https://api.github.com/user"


def gh(stdout: str = TOKEN + "\n", exit_code: int = 0) -> dict[tuple[str, ...], CommandResult | Exception]:
    return {GH: CommandResult(exit_code, stdout, "not logged in")}


@pytest.mark.parametrize(
    ("host", "source"),
    [
        (FakeHost(env={"GITHUB_TOKEN": TOKEN, "GH_TOKEN": "s3cr3t-x"}, responses=ACCEPTED), "GITHUB_TOKEN"),
        (
            FakeHost(env={"GITHUB_TOKEN": "", "GH_TOKEN": TOKEN}, commands=gh("s3cr3t-x"), responses=ACCEPTED),
            "GH_TOKEN",
        ),
        (FakeHost(commands=gh(), confirms=[True], answers=["s3cr3t-x"], responses=ACCEPTED), "gh"),
        (FakeHost(commands=gh(), confirms=[False], answers=[TOKEN], responses=ACCEPTED), "prompt"),
        (FakeHost(answers=[TOKEN], responses=ACCEPTED), "prompt"),
    ],
    ids=["GITHUB_TOKEN", "GH_TOKEN", "gh with leave", "gh without leave", "asked"],
)
async def test_the_first_place_that_has_a_token_is_taken(host: FakeHost, source: str) -> None:
    credential = await GitHub().grant(host)

    assert (credential.secret, credential.source) == (TOKEN, source)


async def test_gh_is_not_run_when_a_variable_is_set() -> None:
    host = FakeHost(env={"GH_TOKEN": TOKEN}, commands=gh(), responses=ACCEPTED)

    await GitHub().grant(host)

    assert (host.ran, host.asked) == ([], [])


async def test_the_token_of_gh_is_never_taken_without_asking() -> None:
    host = FakeHost(commands=gh())

    with pytest.raises(GrantFailed):
        await GitHub().grant(host)

    assert host.asked == ["use the token that gh is logged in with?", "GitHub token"]


@pytest.mark.parametrize(
    "commands",
    [gh("", 1), gh("", 0), {GH: GrantFailed("gh did not end in 10 s")}],
    ids=["fails", "prints nothing", "hangs"],
)
async def test_a_gh_that_has_no_token_is_noted_and_passed_over(
    commands: dict[tuple[str, ...], CommandResult | Exception],
) -> None:
    host = FakeHost(commands=commands, answers=[TOKEN], responses=ACCEPTED)

    assert (await GitHub().grant(host)).source == "prompt"
    assert len(host.said) == 1
    assert host.said[0].startswith("note: gh ")


async def test_a_missing_gh_is_passed_over_silently() -> None:
    host = FakeHost(answers=[TOKEN], responses=ACCEPTED)

    await GitHub().grant(host)

    assert host.said == []


async def test_the_check_is_made_as_github_wants_it() -> None:
    host = FakeHost(responses=ACCEPTED)

    await GitHub().accept(TOKEN, host)

    assert host.fetched[0].method == "GET"
    assert dict(host.fetched[0].headers) == {
        "Authorization": f"Bearer {TOKEN}",
        "Accept": "application/vnd.github+json",
        "User-Agent": "moat",
    }


async def test_it_is_spent_as_bearer_on_the_api_and_as_basic_on_gits_paths_only() -> None:
    credential = await GitHub().accept(TOKEN, FakeHost(validate=False))

    rules = {rule.match.authority: rule for rule in GitHub().rules(credential) if isinstance(rule, SetHeader)}

    assert set(rules) == {"api.github.com", "uploads.github.com", "github.com"}
    assert rules["api.github.com"].value == rules["uploads.github.com"].value == f"Bearer {TOKEN}"
    scheme, _, pair = rules["github.com"].value.partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", f"x-access-token:{TOKEN}")
    assert rules["github.com"].match.paths == GIT_PATHS
    assert all(path.startswith("/*/*/") for path in GIT_PATHS)


async def test_inside_gh_finds_a_placeholder_and_git_never_asks() -> None:
    credential = await GitHub().accept(TOKEN, FakeHost(validate=False))

    assert GitHub().container(credential).env == {"GH_TOKEN": PLACEHOLDER, "GIT_TERMINAL_PROMPT": "0"}
    assert PLACEHOLDER.startswith("ghp_")
    assert len(PLACEHOLDER) == 40
