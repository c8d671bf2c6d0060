from __future__ import annotations

import pytest
from moat.api.credentials import Credential
from moat.api.rules import Match, SetHeader
from moat.demo.provider import API_HOST, VARIABLE, Acme, moat_credential_providers


def test_nobody_but_a_demo_is_offered_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(moat_credential_providers()) == []

    monkeypatch.setenv(VARIABLE, "1")

    assert [provider.name for provider in moat_credential_providers()] == ["acme"]


def test_the_key_is_spent_on_the_demos_api_only() -> None:
    credential = Credential("acme", "s3cr3t", "test")

    assert Acme().rules(credential) == [SetHeader(Match(API_HOST), "Authorization", "Bearer s3cr3t", "acme")]
    assert Acme().container(credential).env == {"ACME_TOKEN": "moat-placeholder"}
