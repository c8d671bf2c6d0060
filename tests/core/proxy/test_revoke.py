from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.http import Authority, RequestHead
from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Passage
from moat.proxy.revoke import revoked
from support.worker import a_run

API = Authority("https", "api.example.com", 443)


def a_rule(grant: str, host: str = API.host, value: str = "Bearer s3cr3t") -> SetHeader:
    return SetHeader(Match(host), "Authorization", value, grant)


def a_passage(*grants: str) -> Passage:
    return Passage(API, RequestHead("GET", API, "/socket?x"), grants)


@pytest.mark.parametrize(
    ("rules", "policy", "grants", "why"),
    [
        ((a_rule("github"),), NetworkPolicy(), ("github",), ""),
        ((a_rule("github", value="Bearer s3cr3t-refreshed"),), NetworkPolicy("strict"), ("github",), ""),
        ((), NetworkPolicy(), (), ""),
        ((), NetworkPolicy(), ("github",), "grant"),
        ((a_rule("github", "other.example.com"),), NetworkPolicy(), ("github",), "grant"),
        ((a_rule("gitlab"),), NetworkPolicy(), ("github",), "grant"),
        ((a_rule("github"),), NetworkPolicy(), ("github", "gitlab"), "grant"),
        ((), NetworkPolicy("strict"), (), "policy"),
    ],
    ids=["as before", "refreshed", "without grants", "revoked", "elsewhere", "another", "one of two", "tightened"],
)
def test_a_tunnel_goes_on_while_its_grants_and_the_policy_do(
    rules: tuple[Rule, ...], policy: NetworkPolicy, grants: tuple[str, ...], why: str
) -> None:
    found = revoked(LiveRun.of(a_run(rules=rules, policy=policy)), a_passage(*grants))

    assert why in found
    assert bool(found) is bool(why)


def test_a_run_that_was_closed_has_no_tunnels() -> None:
    assert revoked(LiveRun.of(replace(a_run(), is_open=False)), a_passage())
