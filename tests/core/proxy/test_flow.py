from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.http import Authority
from moat.api.rules import Match, OnlyPlaceholder, SetHeader
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.net.rules import parse_rule
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Arrival, Passage, judge, judge_connect
from moat.proxy.http1 import read_request
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal

API = Authority("https", "api.example.com", 443)
RULE = SetHeader(Match("api.example.com"), "Authorization", "s3cr3t", "example")
TUNNEL = Arrival("connect", API)
PROXY = Arrival("http")


def a_run(mode: str = "permissive", *, is_open: bool = True, why_closed: str = "") -> LiveRun:
    policy = NetworkPolicy("strict") if mode == "strict" else NetworkPolicy()
    return LiveRun.of(RunContext("run_1", "", policy, (RULE,), is_open, why_closed=why_closed))


def a_trail() -> Trail:
    records: list[ExchangeRecord] = []
    return Trail(records.append, "run_1", "connect")


def ask(first: str, *lines: str, arrival: Arrival = TUNNEL, run: LiveRun | None = None) -> Passage:
    return judge(run or a_run(), arrival, read_request("\r\n".join((first, *lines))), a_trail())


def refused(first: str, *lines: str, arrival: Arrival = TUNNEL, run: LiveRun | None = None) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        ask(first, *lines, arrival=arrival, run=run)
    return refusal.value


def test_a_request_in_a_tunnel_gets_the_credential_of_its_authority() -> None:
    passage = ask("GET /x HTTP/1.1", "Host: API.example.com.", "Connection: Authorization", "Authorization: mine")

    assert passage.authority == API
    assert passage.grants == ("example",)
    assert passage.head.headers.items == (("Authorization", "s3cr3t"),)
    trail = a_trail()
    passage.tell(trail)
    assert (trail.grants, trail.injected, trail.replaced) == (("example",), ("Authorization",), 0)
    assert (trail.decision, trail.rule) == ("allow", "permissive")


def test_strict_says_which_grant_let_a_request_out() -> None:
    assert ask("GET /x HTTP/1.1", "Host: api.example.com", run=a_run("strict")).basis == "grant example"


def test_host_target_and_connection_must_agree() -> None:
    assert refused("GET / HTTP/1.1", "Host: evil.example").status == 421
    assert refused("GET / HTTP/1.1", "Host: api.example.com:8443").status == 421
    assert refused("GET https://evil.example/ HTTP/1.1", "Host: api.example.com").status == 421
    assert refused("GET http://api.example.com/ HTTP/1.1", "Host: api.example.com").status == 421
    assert refused("GET / HTTP/1.1", "Host: user@api.example.com").status == 400
    assert refused("GET /#x HTTP/1.1", "Host: api.example.com").status == 400
    assert refused("OPTIONS * HTTP/1.1", "Host: api.example.com").status == 400
    assert ask("GET https://api.example.com/x HTTP/1.1", "Host: api.example.com").head.target == "/x"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "trace", "TRACK"])
def test_no_tunnel_in_a_tunnel_and_no_trace(method: str) -> None:
    assert refused(f"{method} / HTTP/1.1", "Host: api.example.com").status == 405


def test_absolute_http_is_forwarded_without_credentials() -> None:
    passage = ask("GET http://api.example.com/x?y HTTP/1.1", "Host: api.example.com", arrival=PROXY)

    assert passage.authority == Authority("http", "api.example.com", 80)
    assert passage.head.target == "/x?y"
    assert passage.grants == ()
    assert "authorization" not in passage.head.headers


def test_the_authority_of_an_absolute_target_is_the_targets_not_the_hosts() -> None:
    assert refused("GET http://1.2.3.4/ HTTP/1.1", "Host: api.example.com", arrival=PROXY).status == 421


def test_absolute_https_is_refused_with_advice() -> None:
    refusal = refused("GET https://api.example.com/ HTTP/1.1", "Host: api.example.com", arrival=PROXY)

    assert refusal.status == 400
    assert "HTTPS_PROXY" in refusal.reason


def test_origin_form_at_the_proxy_is_nothing() -> None:
    assert refused("GET /x HTTP/1.1", "Host: api.example.com", arrival=PROXY).status == 404


def test_policy_refuses_before_any_credential() -> None:
    refusal = refused("GET http://other.example/ HTTP/1.1", "Host: other.example", arrival=PROXY, run=a_run("strict"))

    assert (refusal.status, refusal.allow_line) == (403, "--allow-host other.example")


def test_a_run_that_is_not_open_gets_503_for_everything() -> None:
    waiting = a_run(is_open=False)

    assert refused("GET / HTTP/1.1", "Host: api.example.com", run=waiting).status == 503
    with pytest.raises(Refusal, match="not open"):
        judge_connect(waiting, read_request("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example"), a_trail())


def test_a_run_that_is_closed_for_a_reason_is_told_it() -> None:
    waiting = a_run(is_open=False, why_closed="the keyring is locked")

    assert refused("GET / HTTP/1.1", "Host: api.example.com", run=waiting).reason == "the keyring is locked"


def test_connect_is_judged_by_policy_and_by_its_form() -> None:
    def connect(target: str, *lines: str, run: LiveRun | None = None) -> Authority:
        text = "\r\n".join((f"CONNECT {target} HTTP/1.1", "Host: x", *lines))
        return judge_connect(run or a_run(), read_request(text), a_trail())

    assert connect("api.example.com:443", run=a_run("strict")) == API
    for target, status in (("other.example:443", 403), ("api.example.com:22", 403), ("api.example.com", 400)):
        with pytest.raises(Refusal) as refusal:
            connect(target, run=a_run("strict"))
        assert refusal.value.status == status
    with pytest.raises(Refusal):
        connect("api.example.com:443", "Content-Length: 3")


def test_http_1_0_without_host_takes_the_connections_authority() -> None:
    assert ask("GET / HTTP/1.0").authority == API


def test_nothing_is_done_to_answers_until_a_credential_went_out_and_then_to_those_of_its_hosts() -> None:
    long = SetHeader(Match("api.example.com", paths=("/with",)), "Authorization", "Bearer s3cr3t-token", "example")
    run = LiveRun.of(RunContext("run_1", "", NetworkPolicy(), (long,), True))
    lines = ("Host: api.example.com", "Accept-Encoding: br", "Range: bytes=0-6")
    other = Arrival("connect", Authority("https", "other.example", 443))
    before = ask("GET /without HTTP/1.1", *lines, run=run)
    spending = ask("GET /with HTTP/1.1", *lines, run=run)
    after = ask("GET /without HTTP/1.1", *lines, run=run)
    elsewhere = ask("GET / HTTP/1.1", "Host: other.example", "Accept-Encoding: br", arrival=other, run=run)

    assert before.answering is None
    assert before.head.headers.get("Accept-Encoding") == "br"
    assert spending.answering is not None
    assert spending.answering.must_read
    assert spending.head.headers.get("Accept-Encoding") == "identity"
    assert [each.head.headers.get("Range") for each in (before, spending, after)] == ["bytes=0-6", None, "bytes=0-6"]
    assert after.answering is not None
    assert not after.answering.must_read
    assert elsewhere.answering is None
    assert elsewhere.head.headers.get("Accept-Encoding") == "br"


def test_rules_are_asked_about_method_and_path_and_connect_about_the_host() -> None:
    rules = tuple(map(parse_rule, ("allow GET api.example.com/repos/**", "deny *")))
    run = LiveRun.of(RunContext("run_1", "", NetworkPolicy("strict", (), rules), (RULE,), True))
    connect = read_request("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443")

    assert judge_connect(run, connect, a_trail()) == API
    assert ask("GET /repos/x?y HTTP/1.1", "Host: api.example.com", run=run).head.target == "/repos/x?y"
    denied = refused("POST /repos/x HTTP/1.1", "Host: api.example.com", run=run)
    assert (denied.status, denied.outcome, denied.kind) == (403, "denied", "policy")
    assert denied.allow_line == "--rule 'allow POST api.example.com/repos/x'"
    assert refused("GET /repos/%2e%2e/user HTTP/1.1", "Host: api.example.com", run=run).status == 403
    assert refused("GET https://api.example.com/user HTTP/1.1", "Host: api.example.com", run=run).status == 403


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"])
def test_a_header_that_overrides_the_method_is_asked_about_too(name: str) -> None:
    policy = NetworkPolicy(rules=(parse_rule("deny DELETE api.example.com"),))
    run = LiveRun.of(replace(a_run().context, policy=policy))

    assert refused("POST / HTTP/1.1", "Host: api.example.com", f"{name}: delete", run=run).status == 403
    assert refused("POST / HTTP/1.1", "Host: api.example.com", f"{name}: PUT", f"{name}: DELETE", run=run).status == 403
    assert ask("POST / HTTP/1.1", "Host: api.example.com", f"{name}: PUT", run=run).authority == API
    assert ask("POST / HTTP/1.1", "Host: api.example.com", f"{name}: DELETE").authority == API


def test_so_is_one_that_only_grpc_clients_may_write() -> None:
    run = LiveRun.of(replace(a_run().context, policy=NetworkPolicy(rules=(parse_rule("deny DELETE api.example.com"),))))
    request = replace(read_request("POST / HTTP/1.1\r\nHost: api.example.com"), version="2")
    request = replace(request, fields={**request.fields, "x_http_method_override": ("DELETE",)})

    with pytest.raises(Refusal) as refusal:
        judge(run, TUNNEL, request, a_trail())
    assert refusal.value.status == 403


def test_a_key_of_the_runs_own_does_not_leave_in_clear_either() -> None:
    rules = (OnlyPlaceholder(Match("api.example.com"), "X-Key", "moat-placeholder"),)
    run = LiveRun.of(replace(a_run().context, rules=rules))
    first = "GET http://api.example.com/ HTTP/1.1"

    assert refused(first, "Host: api.example.com", "X-Key: theirs", arrival=PROXY, run=run).status == 403
    assert (
        ask(first, "Host: api.example.com", "X-Key: moat-placeholder", arrival=PROXY, run=run).authority.scheme
        == "http"
    )
    assert (
        ask("GET http://b.example/ HTTP/1.1", "Host: b.example", "X-Key: theirs", arrival=PROXY, run=run).grants == ()
    )
