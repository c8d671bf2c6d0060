from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from moat.api.http import Authority
from moat.api.rules import AddHeader, Instead, Match, RemoveHeader, ReplaceToken, RewriteResponse, Rule, SetHeader, Sign
from moat.api.runs import NetworkPolicy, PolicyMode, RunContext
from moat.net.authority import AuthorityRefused
from moat.proxy.admit import Admission, LiveRun, basic_password


def a_run(run_id: str, token: str, *, authority: str = "api.example.com", is_open: bool = True) -> RunContext:
    rule = SetHeader(Match(authority), "Authorization", "s3cr3t", "example")
    digest = hashlib.sha256(token.encode()).hexdigest()
    return RunContext(run_id, digest, NetworkPolicy("strict"), (rule,), is_open)


def basic(token: str, user: str = "moat") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def test_a_token_leads_to_its_run_whatever_the_user_name() -> None:
    runs = Admission()
    runs.put(a_run("run_a", "s3cr3t-a"))
    runs.put(a_run("run_b", "s3cr3t-b"))

    for user in ("moat", "", "someone"):
        found = runs.by_token(basic("s3cr3t-b", user))
        assert found is not None
        assert found.context.run_id == "run_b"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic bW9hdA==",
        "Bearer s3cr3t-a",
        basic(""),
        basic("wrong"),
        basic("s3cr3t-a") + "\u00e9",
    ],
)
def test_anything_else_leads_nowhere(value: str) -> None:
    runs = Admission()
    runs.put(a_run("run_a", "s3cr3t-a"))

    assert runs.by_token(value) is None


def test_a_dropped_run_is_forgotten_and_a_replaced_one_is_new() -> None:
    runs = Admission()
    runs.put(a_run("run_a", "s3cr3t-a", is_open=False))
    runs.put(a_run("run_a", "s3cr3t-a"))
    replaced = runs.by_id("run_a")
    runs.drop("run_a")
    runs.drop("run_a")

    assert replaced is not None
    assert replaced.context.is_open
    assert runs.by_id("run_a") is None
    assert list(runs) == []


def test_grant_hosts_may_leave_in_strict_and_are_nameable_once_open() -> None:
    run, waiting = LiveRun.of(a_run("r", "t")), LiveRun.of(a_run("r", "t", is_open=False))

    assert run.objection(Authority("https", "api.example.com", 443)) is None
    assert run.objection(Authority("https", "other.example.com", 443)) is not None
    assert run.is_nameable("api.example.com")
    assert not run.is_nameable("other.example.com")
    assert not waiting.is_nameable("api.example.com")


def test_a_rule_for_no_host_is_refused() -> None:
    with pytest.raises(AuthorityRefused):
        LiveRun.of(a_run("r", "t", authority="*.example.com"))


def test_basic_wants_the_scheme_in_any_case_and_keeps_colons_of_the_password() -> None:
    assert basic_password("bAsIc " + base64.b64encode(b"u:a:b").decode()) == b"a:b"


def test_no_secret_shows_in_the_repr_of_a_live_run() -> None:
    assert "s3cr3t" not in repr(LiveRun.of(a_run("r", "t")))


def test_what_a_run_has_spent_outlives_its_replacement_and_not_the_run() -> None:
    runs = Admission()
    runs.put(a_run("run_a", "s3cr3t-a"))
    first = runs.by_id("run_a")
    assert first is not None
    first.spent.add(["s3cr3t-that-was-spent"])
    runs.put(a_run("run_a", "s3cr3t-a", authority="other.example.com"))
    second = runs.by_id("run_a")
    runs.drop("run_a")
    runs.put(a_run("run_a", "s3cr3t-a"))
    third = runs.by_id("run_a")

    assert second is not None
    assert second.scrubbed == {"other.example.com"}
    assert second.spent.scrub
    assert third is not None
    assert not third.spent.scrub


def test_rules_for_any_port_hold_where_no_rule_names_the_port() -> None:
    wide = SetHeader(Match("api.example.com", any_port=True), "Authorization", "s3cr3t-wide", "wide")
    narrow = SetHeader(Match("api.example.com"), "X-Key", "s3cr3t-narrow", "narrow")
    named = SetHeader(Match("api.example.com:8443"), "Authorization", "s3cr3t-named", "named")
    run = LiveRun.of(RunContext("run_a", "", NetworkPolicy(), (wide, narrow, named), is_open=True))

    def grants(scheme: str, port: int) -> list[str]:
        return [rule.grant for rule in run.rules_for(Authority(scheme, "api.example.com", port))]

    assert grants("https", 443) == ["wide", "narrow"]
    assert grants("https", 8443) == ["named"]
    assert grants("https", 9443) == ["wide"]
    assert grants("http", 443) == []
    assert run.rules_for(Authority("https", "other.example.com", 443)) == ()


HOST = "api.example.com"
KINDS: dict[str, Callable[[Match, str], Rule]] = {
    "set": lambda match, name: SetHeader(match, name, "s3cr3t"),
    "add": lambda match, name: AddHeader(match, name, "s3cr3t"),
    "remove": lambda match, name: RemoveHeader(match, name),
    "replace": lambda match, name: ReplaceToken(match, f"moat-{name}", "s3cr3t"),
    "rewrite": lambda match, name: RewriteResponse(replace(match, paths=(f"/{name}",)), Instead(200, "{}")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_of_any_kind_for_any_port_gives_way_to_one_about_the_same_that_names_the_port(kind: str) -> None:
    wide = KINDS[kind](Match(HOST, any_port=True), "X-Key")
    named = KINDS[kind](Match(f"{HOST}:8443"), "X-Key")
    run = LiveRun.of(RunContext("run_a", "", NetworkPolicy(), (wide, named), is_open=True))

    assert run.rules_for(Authority("https", HOST, 443)) == (wide,)
    assert run.rules_for(Authority("https", HOST, 8443)) == (named,)
    assert run.rules_for(Authority("https", HOST, 9443)) == (wide,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_rule_that_names_the_port_hides_none_that_is_about_something_else(kind: str, other: str) -> None:
    wide = KINDS[kind](Match(HOST, any_port=True), "X-Key")
    narrow = KINDS[kind](Match(HOST), "X-Key")
    named = KINDS[other](Match(f"{HOST}:8443"), "X-Other")
    run = LiveRun.of(RunContext("run_a", "", NetworkPolicy(), (wide, narrow, named), is_open=True))

    assert run.rules_for(Authority("https", HOST, 8443)) == (named, wide)
    assert run.rules_for(Authority("https", HOST, 443)) == (wide, narrow)


def test_a_header_that_is_removed_at_a_port_is_not_set_there_for_any() -> None:
    wide = SetHeader(Match(HOST, any_port=True), "authorization", "s3cr3t")
    named = RemoveHeader(Match(f"{HOST}:8443"), "Authorization")
    run = LiveRun.of(RunContext("run_a", "", NetworkPolicy(), (wide, named), is_open=True))

    assert run.rules_for(Authority("https", HOST, 8443)) == (named,)


AWS = Sign(Match("*.aws.example"), "aws")


def a_signing_run(mode: PolicyMode = "strict") -> LiveRun:
    return LiveRun.of(RunContext("run_1", "ab", NetworkPolicy(mode), (AWS,), is_open=True))


@pytest.mark.parametrize(
    ("authority", "is_signed"),
    [
        (Authority("https", "s3.aws.example", 443), True),
        (Authority("https", "b.s3.aws.example", 443), True),
        (Authority("https", "s3.aws.example", 8443), False),
        (Authority("http", "s3.aws.example", 80), False),
        (Authority("https", "aws.example", 443), False),
        (Authority("https", "s3.aws.example.evil", 443), False),
        (Authority("https", "evilaws.example", 443), False),
    ],
)
def test_a_rule_that_signs_is_for_every_host_below_and_strict_lets_these_out(
    authority: Authority, is_signed: bool
) -> None:
    run = a_signing_run()

    assert (run.rules_for(authority) == (AWS,)) == is_signed
    assert (run.objection(authority) is None) == is_signed
    assert (run.request_objection(authority, "GET", "/") is None) == is_signed


def test_its_hosts_have_names_inside_and_others_have_none() -> None:
    run = a_signing_run()

    assert run.is_nameable("s3.aws.example")
    assert not run.is_nameable("aws.example")
    assert list(run.rules_of_host("s3.aws.example")) == [AWS]
    assert (run.has_rules_at("s3.aws.example"), run.has_rules_at("a.example")) == (True, False)


def test_no_other_rule_is_for_more_than_one_host() -> None:
    context = RunContext("run_1", "ab", NetworkPolicy(), (SetHeader(Match("*.aws.example"), "A", "s3cr3t"),))

    with pytest.raises(AuthorityRefused):
        LiveRun.of(context)
