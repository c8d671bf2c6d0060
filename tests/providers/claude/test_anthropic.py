from __future__ import annotations

from moat.api import Match, SetHeader
from moat.testing import FakeHost, ProviderContract
from moat_provider_claude.anthropic import Anthropic

KEY = "sk-ant-api03-s3cr3t"


class TestAnthropic(ProviderContract):
    provider = Anthropic()
    secret = KEY
    check_url = "https://api.anthropic.com/v1/models"


async def test_the_key_goes_into_x_api_key_of_the_api_alone() -> None:
    credential = await Anthropic().accept(KEY, FakeHost(validate=False))

    setter, usage = Anthropic().rules(credential)
    match = Match("api.anthropic.com", unless_header="Authorization")
    assert setter == SetHeader(match, "x-api-key", KEY, "anthropic")
    assert (usage.match.authority, usage.match.unless_header) == ("api.anthropic.com", "Authorization")


async def test_the_check_names_the_version_that_the_api_demands() -> None:
    host = FakeHost(env={"ANTHROPIC_API_KEY": KEY}, responses={Anthropic.check_url: 200})

    credential = await Anthropic().grant(host)

    assert credential.source == "ANTHROPIC_API_KEY"
    assert host.fetched[0].headers["anthropic-version"] == "2023-06-01"
    assert host.fetched[0].headers["x-api-key"] == KEY
    assert "Authorization" not in host.fetched[0].headers
