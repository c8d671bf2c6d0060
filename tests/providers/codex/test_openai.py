from __future__ import annotations

from moat.api import Match, SetHeader
from moat.testing import FakeHost, ProviderContract
from moat_provider_codex.openai import OpenAI

KEY = "sk-s3cr3t"


class TestOpenAI(ProviderContract):
    provider = OpenAI()
    secret = KEY
    check_url = "https://api.openai.com/v1/models"


async def test_the_key_goes_as_bearer_to_the_api_alone() -> None:
    credential = await OpenAI().accept(KEY, FakeHost(validate=False))

    setter, usage = OpenAI().rules(credential)
    assert setter == SetHeader(Match("api.openai.com"), "Authorization", f"Bearer {KEY}", "openai")
    assert usage.match.authority == "api.openai.com"


async def test_both_variables_are_placeholders_inside() -> None:
    credential = await OpenAI().grant(FakeHost(env={"CODEX_API_KEY": KEY}, responses={OpenAI.check_url: 200}))

    assert credential.source == "CODEX_API_KEY"
    assert set(OpenAI().container(credential).env) == {"OPENAI_API_KEY", "CODEX_API_KEY"}
