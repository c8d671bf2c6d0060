from __future__ import annotations

import pytest
from moat.api.http import Authority
from moat.api.runs import NetworkPolicy, PolicyMode
from moat.net.policy import (
    METADATA_NAMES,
    Objection,
    allow_line,
    basis,
    is_nameable,
    look_up_objection,
    narrowed,
    objection,
    request_objection,
)
from moat.net.rules import Ask, parse_rule

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


def ruled(*lines: str, mode: PolicyMode = "strict") -> NetworkPolicy:
    return NetworkPolicy(mode, (), tuple(map(parse_rule, lines)))


def asked(policy: NetworkPolicy, method: str = "GET", path: str = "/", authority: Authority = API) -> Objection | None:
    assert narrowed(narrowed(policy, authority), authority) == narrowed(policy, authority)
    found = request_objection(policy, {GRANTED}, authority, method, path)
    assert request_objection(narrowed(policy, authority), {GRANTED}, authority, method, path) == found
    return found


GRANTED = Authority("https", "granted.example", 443)


def test_a_rule_lets_out_in_strict_and_keeps_in_in_permissive() -> None:
    assert asked(ruled("allow GET api.example.com/repos/**"), path="/repos/x") is None
    assert asked(ruled("deny DELETE *", mode="permissive"), "DELETE") is not None
    assert asked(ruled("deny DELETE *", mode="permissive"), "GET") is None


def test_what_no_rule_fits_is_for_the_mode_to_decide() -> None:
    rules = "allow GET api.example.com/repos/**"

    assert asked(ruled(rules), path="/user") is not None
    assert asked(ruled(rules, mode="permissive"), path="/user") is None
    assert asked(ruled(rules), authority=GRANTED) is None


def test_a_rule_wins_over_a_grant_and_metadata_over_every_rule() -> None:
    assert asked(ruled("deny granted.example"), authority=GRANTED) is not None
    metadata = Authority("http", "metadata.google.internal", 80)
    assert asked(ruled("allow *"), authority=metadata) is not None
    assert objection(ruled("allow *"), (), metadata) is not None


def test_the_line_of_a_denial_helps_before_the_rule_that_denies_and_not_behind_it() -> None:
    rule = "deny * api.example.com"
    denied = asked(ruled(rule), "POST", "/a")
    assert denied is not None
    line = denied.allow_line.removeprefix("--rule '").removesuffix("'")

    assert denied.rule == rule
    assert asked(ruled(line, rule), "POST", "/a") is None
    assert asked(ruled(line, rule), "GET", "/a") is not None
    assert asked(ruled(rule, line), "POST", "/a") == denied


def test_a_denial_names_the_rule_and_a_line_that_helps() -> None:
    denied = asked(ruled("deny * api.example.com"), "POST", "/a%2Db")
    unlisted = asked(ruled("allow GET api.example.com/a"), "POST", "/a")
    at_connect = objection(ruled("deny * api.example.com"), (), API)

    assert denied is not None
    assert "'deny * api.example.com'" in denied.reason
    assert denied.allow_line == "--rule 'allow POST api.example.com/a-b'"
    assert unlisted is not None
    assert unlisted.allow_line == "--rule 'allow POST api.example.com/a'"
    assert at_connect is not None
    assert at_connect.allow_line == "--rule 'allow api.example.com'"
    assert parse_rule("allow api.example.com")


@pytest.mark.parametrize("path", ["/admin%2fx", "/x/../admin", "//admin", "/admin;a/x", "/%61dmin%00"])
def test_a_doubtful_path_is_denied_as_soon_as_a_rule_asks_for_it(path: str) -> None:
    found = asked(ruled("deny api.example.com/admin/**", "allow api.example.com"), path=path)

    assert found is not None
    assert "more than one way" in found.reason
    assert not found.allow_line
    assert asked(ruled("allow api.example.com"), path=path) is None


def test_the_path_is_compared_as_servers_read_it() -> None:
    assert asked(ruled("deny api.example.com/admin/**", "allow *"), path="/%61dmin/x") is not None


def test_before_a_request_is_known_a_host_is_let_through_if_any_could_leave() -> None:
    policy = ruled("allow GET api.example.com/a", "deny *")

    assert objection(policy, (), API) is None
    assert objection(policy, (), GRANTED) is not None
    assert is_nameable(policy, (), "api.example.com")
    assert not is_nameable(policy, (), "granted.example")


@pytest.mark.parametrize(
    ("policy", "granted", "expected"),
    [
        (ruled("allow GET api.example.com/x", mode="permissive"), (), "allow GET api.example.com/x"),
        (ruled("allow POST api.example.com", mode="permissive"), (), "permissive"),
        (strict("other.example", "*.example.com"), (), "allow *.example.com"),
        (strict("*.example.com"), (API,), "grant"),
    ],
    ids=["a rule", "the mode", "a line of allow", "a grant"],
)
def test_what_let_a_request_out_is_told(policy: NetworkPolicy, granted: tuple[Authority, ...], expected: str) -> None:
    assert basis(policy, granted, Ask(API, "GET", "/x")) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (objection(strict(), (), API), "strict"),
        (objection(ruled("deny * *"), (), API), "deny * *"),
        (objection(PERMISSIVE, (), Authority("http", "metadata", 80)), "metadata"),
        (asked(ruled("deny GET api.example.com/x"), path="/%2f"), "path"),
    ],
)
def test_what_kept_a_request_in_is_told(found: Objection | None, expected: str) -> None:
    assert found is not None
    assert found.basis == expected


@pytest.mark.parametrize("policy", [PERMISSIVE, strict(), strict("*")])
def test_no_policy_opens_a_port_of_this_machine(policy: NetworkPolicy) -> None:
    for host in ("host.moat.internal", "db.host.moat.internal"):
        found = objection(policy, (), Authority("http", host, 5432))

        assert found == Objection("port 5432 of this machine is not open to this run", "--host-port 5432")
        told = look_up_objection(found, host)
        assert told == Objection(f"no port of this machine is open to this run as {host}", "--host-port PORT")
    assert objection(PERMISSIVE, (), Authority("http", "nohost.moat.internal", 5432)) is None


def test_a_look_up_of_any_other_host_is_refused_in_the_same_words() -> None:
    found = objection(strict(), (), API)

    assert look_up_objection(found, API.host) is found
    assert look_up_objection(None, "host.moat.internal") is None
