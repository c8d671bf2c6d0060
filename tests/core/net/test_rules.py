from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.errors import UsageError
from moat.api.http import Authority
from moat.api.runs import NetworkRule
from moat.net.paths import readings
from moat.net.rules import AmbiguousPath, Ask, allowing_line, host_verdict, parse_rule, rule_text, rules_for, verdict

API = Authority("https", "api.example.com", 443)
ODD_PORT = Authority("https", "api.example.com", 8443)


def first(lines: list[str], method: str = "GET", path: str | None = "/", authority: Authority = API) -> str:
    found = verdict(tuple(map(parse_rule, lines)), Ask(authority, method, path))
    return found.verdict if found is not None else "none"


def at_host(lines: list[str], authority: Authority = API) -> str:
    found = host_verdict(tuple(map(parse_rule, lines)), authority)
    return found.verdict if found is not None else "none"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("allow api.example.com", NetworkRule("allow", (), "api.example.com")),
        ("deny  *  *.example.com:8443", NetworkRule("deny", (), "*.example.com:8443")),
        ("allow get,POST,GET */a/**", NetworkRule("allow", ("GET", "POST"), "*", "/a/**")),
        ("allow [2001:db8::1]:8443/a", NetworkRule("allow", (), "[2001:db8::1]:8443", "/a")),
        ("allow api.example.com/**", NetworkRule("allow", (), "api.example.com")),
    ],
)
def test_a_line_is_read_and_written_alike(line: str, rule: NetworkRule) -> None:
    assert parse_rule(line) == rule
    assert parse_rule(rule_text(rule)) == rule


@pytest.mark.parametrize(
    "line",
    ["", "allow", "permit a.example", "allow GET /repos/**", "allow GET a.example b.example", "allow G=T a.example",
     "allow GET, a.example", "allow a*.example", "allow *.com", "allow a.example/x?y", "allow a.example/%41",
     "allow a.example/a//b", "allow a.example/../b", "allow a.example/a;b", "allow https://a.example/",
     "allow GET a.example/a b", "deny DELETE", "allow GET/x"],
)  # fmt: skip
def test_what_is_no_rule_is_an_error_that_says_what_to_write(line: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_rule(line)

    assert error.value.hint


def test_the_first_rule_that_fits_decides() -> None:
    lines = ["allow GET api.example.com/a", "deny api.example.com/a", "allow api.example.com"]

    assert first(lines, "GET", "/a") == "allow"
    assert first(lines, "POST", "/a") == "deny"
    assert first(lines, "POST", "/b") == "allow"
    assert first(lines, authority=Authority("https", "other.example", 443)) == "none"


def test_get_covers_head_and_no_case_matters() -> None:
    assert first(["deny GET api.example.com"], "HEAD") == "deny"
    assert first(["deny GET api.example.com"], "get") == "deny"
    assert first(["deny HEAD api.example.com"], "GET") == "none"
    assert first(["deny GET api.example.com"], "OPTIONS") == "none"


def test_without_a_port_allow_is_for_the_usual_one_and_deny_for_all() -> None:
    assert first(["allow api.example.com"], authority=ODD_PORT) == "none"
    assert first(["deny api.example.com"], authority=ODD_PORT) == "deny"
    assert first(["deny api.example.com:8443"]) == "none"
    assert first(["allow *.example.com:8443"], authority=ODD_PORT) == "allow"


def test_a_wildcard_is_for_hosts_below_and_not_for_the_host() -> None:
    apex = Authority("https", "example.com", 443)

    assert first(["deny *.example.com"]) == "deny"
    assert first(["deny *.example.com"], authority=apex) == "none"


@pytest.mark.parametrize("path", [None, "/a;x/b"])
def test_a_path_that_reads_two_ways_is_nobodys_to_judge_once_a_rule_asks_for_it(path: str | None) -> None:
    with pytest.raises(AmbiguousPath):
        first(["deny api.example.com/admin/**", "allow api.example.com"], path=path)

    assert first(["deny POST api.example.com/admin/**", "allow api.example.com"], path=path) == "allow"
    assert first(["allow api.example.com", "deny api.example.com/admin/**"], path=path) == "allow"
    assert first(["deny other.example/admin/**"], path=path) == "none"


def test_a_host_is_kept_in_only_when_no_request_could_leave() -> None:
    assert at_host(["deny api.example.com"]) == "deny"
    assert at_host(["allow GET api.example.com/a", "deny api.example.com"]) == "allow"
    assert at_host(["deny POST api.example.com", "deny api.example.com/a"]) == "none"
    assert at_host(["deny api.example.com", "allow GET api.example.com/a"]) == "deny"


def test_only_the_rules_that_speak_of_an_authority_are_asked() -> None:
    mine, other = parse_rule("deny *.example.com/a"), parse_rule("allow other.example")

    assert rules_for((mine, other), API) == (mine,)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/repos/x", "--rule 'allow POST api.example.com/repos/x'"),
        ("/a b/c", "--rule 'allow POST api.example.com/**'"),
        ("/a/it's *", "--rule 'allow POST api.example.com/a/**'"),
        (None, "--rule 'allow POST api.example.com/'"),
    ],
)
def test_the_line_to_add_is_exact_where_it_can_be(path: str | None, line: str) -> None:
    assert allowing_line(Ask(API, "POST", path)) == line


@given(st.text("/aé.b*' %", max_size=12).map(lambda text: "/" + text.replace("//", "/").lstrip("/")))
def test_the_line_to_add_lets_out_what_was_denied(path: str) -> None:
    if readings(path) is None:  # then a request has no path that rules are compared with
        return
    if "//" in path or {"", ".", ".."} & set(path[1:].split("/")[:-1]) or path.rpartition("/")[2] in (".", ".."):
        return
    ask = Ask(API, "POST", path)
    flag, line = shlex.split(allowing_line(ask))
    found = verdict((parse_rule(line),), ask)

    assert flag == "--rule"
    assert found is not None
