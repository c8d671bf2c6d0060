from __future__ import annotations

import pytest
from moat.api.http import Authority
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Arrival, Passage
from moat.proxy.http1 import read_request
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal
from moat.proxy.repeats import Last, Repeats

API = Authority("https", "api.example.com", 443)
TUNNEL = Arrival("connect", API)
TEXT = "GET /x HTTP/1.1\r\nHost: api.example.com"


def a_run(secret: str = "s3cr3t-one", mode: str = "permissive") -> LiveRun:
    policy = NetworkPolicy("strict", ()) if mode == "strict" else NetworkPolicy()
    rules = (SetHeader(Match("api.example.com"), "Authorization", secret, "example"),) if secret else ()
    return LiveRun.of(RunContext("run_1", "", policy, rules, True))


def a_trail() -> Trail:
    return Trail(lambda _: None, "run_1", "connect")


def judged(repeats: Repeats, run: LiveRun, text: str = TEXT) -> tuple[Passage, Trail]:
    trail = a_trail()
    return repeats.judge(run, TUNNEL, read_request(text), trail), trail


def value(passage: Passage) -> str | None:
    return passage.head.headers.get("Authorization")


def test_a_memory_holds_one_value_and_what_it_was_made_of() -> None:
    last = Last[str]()

    assert last.made_of(1) is None
    assert last.keep("one", 1, "a") == "one"
    assert last.made_of(1, "a") == "one"
    assert last.made_of(2, "a") is None
    last.keep("two", 2)
    assert last.made_of(1, "a") is None


def test_the_same_request_is_judged_as_before_and_its_trail_is_led() -> None:
    repeats, run = Repeats(), a_run()
    first, _ = judged(repeats, run)
    for _ in range(3):
        again, trail = judged(repeats, run)

        assert value(again) == value(first) == "s3cr3t-one"
        assert (trail.method, trail.path, trail.host, trail.port) == ("GET", "/x", "api.example.com", 443)


def test_a_replaced_credential_is_spent_from_the_next_request_on() -> None:
    repeats = Repeats()
    judged(repeats, a_run())
    judged(repeats, a_run())

    assert value(judged(repeats, a_run("s3cr3t-two"))[0]) == "s3cr3t-two"


def test_a_revoked_grant_is_not_spent_any_more() -> None:
    repeats = Repeats()
    judged(repeats, a_run())

    passage, _ = judged(repeats, a_run(""))

    assert (value(passage), passage.grants) == (None, ())


def test_a_tightened_policy_refuses_what_went_through_before() -> None:
    repeats = Repeats()
    judged(repeats, a_run(""))

    with pytest.raises(Refusal):
        judged(repeats, a_run("", "strict"))


def test_another_request_is_judged_anew() -> None:
    repeats, run = Repeats(), a_run()
    judged(repeats, run)

    with pytest.raises(Refusal):
        judged(repeats, run, "GET /x HTTP/1.1\r\nHost: evil.example")
