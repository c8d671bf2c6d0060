from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from moat.api.credentials import Credential
from moat.api.endpoints import Forward, OnHost, ProxyPath, Tcp
from moat.api.errors import GrantMissing, UsageError
from moat.api.rules import AddHeader, Instead, OnlyTools, RemoveHeader, ReplaceToken, RewriteResponse, SetHeader
from moat.daemon import given
from moat.daemon.extras import (
    AwsConfig,
    ExtraHeader,
    Extras,
    GivenCredential,
    HostPort,
    McpServer,
    ResponseTransformer,
    TokenSubstitution,
    UnwantedHeader,
)

HOST = "api.example.com"


def load(name: str) -> Credential:
    if name != "linear":
        raise GrantMissing(f"no {name} credential is stored")
    return Credential(name, "s3cr3t-linear", "test")


def test_each_field_becomes_its_rule() -> None:
    extras = Extras(
        credentials=(GivenCredential(HOST, "Authorization", "Bearer s3cr3t", "mine"),),
        extra_headers=(ExtraHeader(f"{HOST}:8443", "X-Version", "2"),),
        remove_headers=(UnwantedHeader(HOST, "X-Api-Key"),),
        token_substitutions=(TokenSubstitution(HOST, "moat-placeholder", "s3cr3t"),),
    )

    credential, extra, unwanted, token = given.rules_of(extras)

    assert isinstance(credential, SetHeader)
    assert (credential.match.authority, credential.name, credential.grant) == (HOST, "Authorization", "mine")
    assert credential.match.any_port
    assert isinstance(extra, AddHeader)
    assert extra.match.authority == f"{HOST}:8443"
    assert not extra.match.any_port
    assert isinstance(unwanted, RemoveHeader)
    assert isinstance(token, ReplaceToken)
    assert set(token.where) == {"header", "path", "query", "body"}


def test_the_workaround_answers_what_a_subscription_s_token_may_not_ask() -> None:
    extras = Extras(response_transformers=(ResponseTransformer(HOST, "oauth-endpoint-workaround"),))

    rules = [rule for rule in given.rules_of(extras) if isinstance(rule, RewriteResponse)]

    assert [rule.match.paths for rule in rules] == [("/api/oauth/profile",), ("/api/oauth/usage",)]
    assert all(rule.statuses == (403,) and isinstance(rule.how, Instead) and rule.how.status == 200 for rule in rules)


def test_scrubbing_is_known_and_adds_nothing() -> None:
    assert given.rules_of(Extras(response_transformers=(ResponseTransformer(HOST, "response-scrub"),))) == []


@pytest.mark.parametrize(
    "extras",
    [
        Extras(credentials=(GivenCredential("*.example.com", "A", "b"),)),
        Extras(credentials=(GivenCredential(HOST, "A: b", "c"),)),
        Extras(credentials=(GivenCredential(HOST, "A", "s3cr3t\r\nB: c"),)),
        Extras(extra_headers=(ExtraHeader("", "A", "b"),)),
        Extras(token_substitutions=(TokenSubstitution(HOST, "short", "s3cr3t"),)),
        Extras(response_transformers=(ResponseTransformer(HOST, "from-the-future"),)),
        Extras(response_transformers=(ResponseTransformer("no host", "response-scrub"),)),
    ],
)
def test_what_is_not_understood_refuses_the_run_and_shows_no_value(extras: Extras) -> None:
    with pytest.raises(UsageError) as refused:
        given.rules_of(extras)

    assert "s3cr3t" not in f"{refused.value.problem} {refused.value.hint}"


def test_an_mcp_server_is_an_endpoint_with_its_grant_s_secret() -> None:
    server = McpServer("linear", "https://mcp.example.com:8443/v1/mcp", "linear", tools=("read",))

    (endpoint,) = given.mcp_endpoints([server], load)

    assert endpoint.where == ProxyPath("/mcp/linear/")
    assert isinstance(endpoint.how, Forward)
    assert (endpoint.how.upstream.address, endpoint.how.upstream.path) == ("mcp.example.com:8443", "/v1/mcp")
    header, only = endpoint.how.rules
    assert isinstance(header, SetHeader)
    assert header.value == "Bearer s3cr3t-linear"
    assert isinstance(only, OnlyTools)
    assert only.tools == ("read",)


def test_another_header_gets_the_secret_as_it_is_and_no_grant_none() -> None:
    keyed = McpServer("c7", "https://mcp.example.com/mcp", "linear", "CONTEXT7_API_KEY")
    (with_key,) = given.mcp_endpoints([keyed], load)
    (without,) = given.mcp_endpoints([replace(keyed, grant="")], load)

    assert isinstance(with_key.how, Forward)
    assert isinstance(without.how, Forward)
    assert [getattr(rule, "value", "") for rule in with_key.how.rules] == ["s3cr3t-linear"]
    assert without.how.rules == ()


def test_a_grant_that_is_not_stored_refuses_the_run() -> None:
    with pytest.raises(GrantMissing):
        given.mcp_endpoints([McpServer("x", "https://mcp.example.com/", "absent")], load)


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.com/mcp",
        "https:///mcp",
        "https://user:s3cr3t@mcp.example.com/",
        "https://mcp.example.com/mcp?key=s3cr3t",
        "https://mcp.example.com:99999/",
        "https://mcp.example.com/a%20b",
        "https://mcp.example.com//a",
        "mcp.example.com",
    ],
)
def test_an_address_that_is_not_understood_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        given.mcp_endpoints([McpServer("x", url)], load)

    assert "s3cr3t" not in refused.value.problem


@pytest.mark.parametrize(
    "extras",
    [
        Extras(are_values_lost=True),
        Extras(mcp_servers=(McpServer("a", "https://a.example/"), McpServer("a", "https://b.example/"))),
        Extras(mcp_servers=(McpServer("../a", "https://a.example/"),)),
        Extras(remove_headers=(UnwantedHeader(HOST, "X"),) * (given.MAX_EXTRAS + 1)),
    ],
    ids=["values lost", "one name twice", "a path", "too many"],
)
def test_what_cannot_be_served_is_refused_before_anything_is_made(extras: Extras) -> None:
    with pytest.raises(UsageError):
        given.check(extras)


def test_a_role_becomes_the_credential_that_its_provider_stores() -> None:
    config = AwsConfig("arn:aws:iam::123456789012:role/x", "eu-central-1", 900, "", "work")

    credential = given.aws_credential(config)

    wanted: dict[str, Any] = {"region": "eu-central-1", "session_duration_s": "900", "profile": "work"}
    assert (credential.provider, credential.secret, dict(credential.metadata)) == ("aws", config.role_arn, wanted)


def test_a_session_policy_of_a_role_becomes_what_its_provider_stores() -> None:
    policy = '{"Version": "2012-10-17", "Statement": []}'

    credential = given.aws_credential(AwsConfig("arn:aws:iam::123456789012:role/x", session_policy=policy))

    assert credential.secret == f"arn:aws:iam::123456789012:role/x {policy}"
    assert credential.metadata["session_policy"]


def test_a_port_of_this_machine_is_found_under_the_common_and_its_own_name() -> None:
    ports = (HostPort(5432, "db"), HostPort(5432), HostPort(80))

    found = given.host_endpoints(ports)

    assert [(each.where, each.how) for each in found] == [
        (Tcp("host.moat.internal", 5432, tls=False), OnHost(5432)),
        (Tcp("db.host.moat.internal", 5432, tls=False), OnHost(5432)),
        (Tcp("host.moat.internal", 80, tls=False), OnHost(80)),
    ]


@pytest.mark.parametrize("port", [HostPort(0), HostPort(53), HostPort(19080), HostPort(70000), HostPort(1, "A b")])
def test_a_port_that_cannot_be_opened_is_refused(port: HostPort) -> None:
    with pytest.raises(UsageError, match="host_ports"):
        given.host_endpoints((port,))
