from __future__ import annotations

from moat.api.credentials import Credential
from moat.api.rules import Match, SetHeader
from moat.demo.acme import API_HOST, Acme


def test_the_key_is_spent_on_the_demos_api_only() -> None:
    credential = Credential("acme", "s3cr3t", "test")

    assert Acme().rules(credential) == [SetHeader(Match(API_HOST), "Authorization", "Bearer s3cr3t", "acme")]
    assert Acme().container(credential).env == {"ACME_TOKEN": "moat-placeholder"}
