from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Respond, Stream, Tcp, Upstream
from moat.api.http import Authority, RequestHead
from moat.api.rules import Match, Rule, SetHeader
from moat.api.runs import NetworkPolicy
from moat.net.rules import parse_rule
from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import upstream_of
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


KUBE = Upstream("kube.example:6443")
FORWARD = Endpoint(ProxyPath("/_moat/kube/"), Forward(KUBE, (SetHeader(Match(KUBE.address), "A", "s3cr3t", "k"),)), "k")
DB = Endpoint(Tcp("db.internal", 5432), Stream(Upstream("db.example:5433"), b"s3cr3t"), "db")
NO_DELETE = NetworkPolicy("strict", rules=(parse_rule("deny DELETE kube.example:6443/**"),))


def at_endpoint(endpoint: Endpoint, method: str) -> Passage:
    assert not isinstance(endpoint.how, Respond)
    authority = upstream_of(endpoint)
    return Passage(authority, RequestHead(method, authority, "/x"), (endpoint.grant,), upstream=endpoint.how.upstream)


@pytest.mark.parametrize(
    ("endpoints", "passage", "policy", "why"),
    [
        ((FORWARD,), at_endpoint(FORWARD, "GET"), NO_DELETE, ""),
        ((FORWARD,), at_endpoint(FORWARD, "DELETE"), NO_DELETE, "policy"),
        ((DB,), at_endpoint(FORWARD, "GET"), None, "endpoint is gone"),
        ((), at_endpoint(DB, ""), None, "endpoint is gone"),
        ((DB,), at_endpoint(DB, ""), NetworkPolicy("strict"), ""),
        ((DB,), at_endpoint(DB, ""), NetworkPolicy(rules=(parse_rule("deny * db.example:5433/**"),)), "policy"),
        ((replace(DB, grant="other"),), at_endpoint(DB, ""), None, "grant"),
    ],
    ids=["as before", "denied", "replaced", "taken away", "stream", "stream denied", "of another grant"],
)
def test_what_is_open_at_an_endpoint_goes_on_while_that_is_there_and_may(
    endpoints: tuple[Endpoint, ...], passage: Passage, policy: NetworkPolicy | None, why: str
) -> None:
    told = revoked(LiveRun.of(replace(a_run(policy=policy), endpoints=endpoints)), passage)

    assert (told == "") == (why == "")
    assert why in told
