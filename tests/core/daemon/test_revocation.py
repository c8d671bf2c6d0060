from __future__ import annotations

import json

from moat.api.rules import Instead, Match, RemoveHeader, Rule, SetHeader
from moat.daemon.revocation import explanations

RULES: tuple[Rule, ...] = (
    SetHeader(Match("api.apple.test"), "Authorization", "Bearer tok-s3cr3t", "apple"),
    RemoveHeader(Match("api.apple.test"), "X-Api-Key", "apple"),
    SetHeader(Match("api.pear.test"), "Authorization", "Bearer tok-s3cr3t", "pear"),
    SetHeader(Match("api.mine.test"), "Authorization", "Bearer tok-s3cr3t"),
)


def test_each_host_of_a_revoked_grant_says_once_what_happened_and_what_to_type() -> None:
    (told,) = explanations(RULES, {"apple": "the service says that the token was revoked", "pear": ""}, "work")

    assert (told.match.authority, told.statuses, told.grant) == ("api.apple.test", (401,), "apple")
    assert isinstance(told.how, Instead)
    message = json.loads(told.how.body)["error"]["message"]
    assert message.startswith("moat: the service says that the token was revoked")
    assert message.endswith("run: moat grant --profile work apple")


def test_while_nothing_is_revoked_nothing_is_told() -> None:
    assert list(explanations(RULES, {"apple": "", "pear": ""}, "")) == []


def test_in_the_default_profile_no_profile_is_named() -> None:
    (told,) = explanations(RULES, {"pear": "it is over"}, "")

    assert isinstance(told.how, Instead)
    assert json.loads(told.how.body)["error"]["message"].endswith("run: moat grant pear")
