from __future__ import annotations

import pytest
from moat.api.http import Authority
from moat.api.runs import NetworkPolicy
from moat.net.policy import METADATA_NAMES, allow_line, is_nameable, objection

API = Authority("https", "api.example.com", 443)
PERMISSIVE = NetworkPolicy()


def strict(*allow: str) -> NetworkPolicy:
    return NetworkPolicy("strict", allow)


def test_permissive_lets_every_host_out() -> None:
    assert objection(PERMISSIVE, (), API) is None
    assert objection(PERMISSIVE, (), Authority("http", "x.example", 8080)) is None


def test_strict_policy_refuses_an_unlisted_host_and_names_the_line() -> None:
    found = objection(strict(), (), API)

    assert found is not None
    assert "api.example.com" in found.reason
    assert found.allow_line == "--allow-host api.example.com"


def test_strict_lets_out_what_a_pattern_allows() -> None:
    assert objection(strict("*.example.com"), (), API) is None
    assert objection(strict("other.example.com"), (), API) is not None


def test_strict_lets_out_the_hosts_of_grants_on_their_port_only() -> None:
    assert objection(strict(), {API}, API) is None
    assert objection(strict(), {API}, Authority("https", "api.example.com", 8443)) is not None
    assert objection(strict(), {API}, Authority("http", "api.example.com", 80)) is not None


@pytest.mark.parametrize("port", [22, 25, 6379, 8443])
def test_a_rule_without_port_does_not_open_other_ports(port: int) -> None:
    found = objection(strict("api.example.com"), (), Authority("https", "api.example.com", port))

    assert found is not None
    assert found.allow_line == f"--allow-host api.example.com:{port}"


@pytest.mark.parametrize("host", [*sorted(METADATA_NAMES), "169.254.169.254", "fd00:ec2::254", "::ffff:a9fe:a9fe"])
def test_metadata_is_refused_whatever_is_allowed(host: str) -> None:
    authority = Authority("http", host, 80)

    for policy in (PERMISSIVE, strict("*"), strict(str(authority))):
        found = objection(policy, {authority}, authority)
        assert found is not None
        assert found.allow_line == ""


def test_a_host_is_nameable_when_https_or_http_may_leave() -> None:
    assert is_nameable(strict("a.example"), (), "a.example")
    assert is_nameable(strict("a.example:80"), (), "a.example")
    assert not is_nameable(strict("a.example:8443"), (), "a.example")
    assert not is_nameable(strict(), (), "a.example")


def test_the_allow_line_leaves_a_default_port_out() -> None:
    assert allow_line(Authority("http", "a.example", 80)) == "--allow-host a.example"
    assert allow_line(Authority("https", "::1", 8443)) == "--allow-host [::1]:8443"
