from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, Forward, OnHost, ProxyPath, Reply, Respond, Stream, Tcp, UnixPath, Upstream
from moat.api.http import Authority
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.net.authority import AuthorityRefused
from moat.net.rules import parse_rule
from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import (
    asked_of,
    authority_of,
    connect_anywhere,
    endpoint_at,
    judge_anywhere,
    judge_stream,
    place_of,
    upstream_of,
)
from moat.proxy.flow import Arrival, Passage
from moat.proxy.http1 import read_request
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal
from moat.proxy.revoke import revoked
from support.worker import a_run

RULE = SetHeader(Match("kube.example:6443"), "Authorization", "Bearer s3cr3t", "kube")
KUBE = Endpoint(ProxyPath("/_moat/kube/"), Forward(Upstream("kube.example:6443"), (RULE,)), "kube")
PLAIN = Endpoint(ProxyPath("/_moat/plain/"), Forward(Upstream("kube.example:6443", tls=False), (RULE,)), "kube")
API = Endpoint(Tcp("api.internal"), Forward(Upstream("kube.example:6443"), (RULE,)), "kube")
CLEAR = Endpoint(Tcp("clear.internal", 80, tls=False), Forward(Upstream("kube.example:6443"), (RULE,)), "kube")
DB = Endpoint(Tcp("db.internal", 5432, tls=False), Stream(Upstream("db.example:5433"), b"s3cr3t\n"), "db")
SOCKET = Endpoint(UnixPath("/run/kube/api.sock"), Forward(Upstream("kube.example:6443"), (RULE,)), "kube")
WORDS = Endpoint(ProxyPath("/_moat/words/"), Respond("words", Reply(body=b"hello")), "kube")
ALL = (KUBE, PLAIN, API, CLEAR, DB, SOCKET, WORDS)
PROXY = Arrival("http")


def a_live_run(policy: NetworkPolicy | None = None, *, is_open: bool = True) -> LiveRun:
    return LiveRun.of(replace(a_run(policy=policy, is_open=is_open), endpoints=ALL))


def a_trail() -> Trail:
    return Trail(lambda _: None, "run_1", "http")


def judged(
    target: str, run: LiveRun | None = None, method: str = "GET", *lines: str, arrival: Arrival = PROXY
) -> Passage:
    host = [] if any(line.startswith("Host:") for line in lines) else ["Host: 127.0.0.1:19080"]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *host, *lines])
    return judge_anywhere(run or a_live_run(), arrival, read_request(head), a_trail())


def at(endpoint: Endpoint) -> Arrival:
    return Arrival("endpoint", authority_of(endpoint.where), endpoint.where)


@pytest.mark.parametrize(
    "target",
    ["/", "/_moat/", "/_moat/kube", "/_moat/kubernetes/", "/x/_moat/kube/", "http://a.example/_moat/kube/", "*"],
)
def test_another_target_is_for_no_endpoint(target: str) -> None:
    request = read_request(f"GET {target} HTTP/1.1\r\nHost: a.example")

    assert asked_of(a_live_run(), PROXY, request) is None


def test_inside_a_tunnel_a_path_is_the_hosts_own() -> None:
    request = read_request("GET /_moat/kube/ HTTP/1.1\r\nHost: a.example")

    assert asked_of(a_live_run(), Arrival("connect", Authority("https", "a.example", 443)), request) is None


@pytest.mark.parametrize(
    ("target", "sent"),
    [("/_moat/kube/", "/"), ("/_moat/kube/api?a=/_moat/kube/", "/api?a=/_moat/kube/"), ("/_moat/kube//x", "//x")],
)
def test_what_follows_the_path_is_what_is_asked_upstream(target: str, sent: str) -> None:
    passage = judged(target, None, "GET", "Authorization: Bearer placeholder", "Proxy-Authorization: Basic s3cr3t")

    assert passage.head.target == sent
    assert passage.authority == Authority("https", "kube.example", 6443)
    assert passage.head.headers.get_all("Authorization") == ("Bearer s3cr3t",)
    assert "Proxy-Authorization" not in passage.head.headers
    assert "Host" not in passage.head.headers
    assert passage.grants == ("kube",)


def test_a_credential_does_not_leave_in_clear() -> None:
    passage = judged("/_moat/plain/")

    assert upstream_of(PLAIN).scheme == "http"
    assert "Authorization" not in passage.head.headers


@pytest.mark.parametrize(
    ("run", "method", "status"),
    [
        (a_live_run(is_open=False), "GET", 503),
        (a_live_run(), "TRACE", 405),
        (a_live_run(), "CONNECT", 405),
    ],
    ids=["closed", "trace", "connect"],
)
def test_an_endpoint_is_judged_like_any_host(run: LiveRun, method: str, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        judged("/_moat/kube/", run, method)

    assert refusal.value.status == status


def test_a_strict_policy_lets_it_out_and_the_run_gets_no_other_way_there() -> None:
    run = a_live_run(NetworkPolicy("strict"))

    assert judged("/_moat/kube/", run).grants == ("kube",)
    assert run.objection(upstream_of(KUBE)) is not None


@pytest.mark.parametrize(
    ("endpoint", "lines"),
    [(API, ("Host: api.internal",)), (API, ("Host: API.internal:443",)), (SOCKET, ("Host: whatever",))],
    ids=["name", "spelled otherwise", "socket"],
)
def test_a_request_at_a_place_goes_to_its_upstream(endpoint: Endpoint, lines: tuple[str, ...]) -> None:
    passage = judged("/v1?x", None, "GET", *lines, arrival=at(endpoint))

    assert (passage.authority, passage.head.target) == (Authority("https", "kube.example", 6443), "/v1?x")
    assert passage.head.headers.get("Authorization") == "Bearer s3cr3t"


def test_at_a_name_no_other_host_may_be_named() -> None:
    with pytest.raises(Refusal) as refusal:
        judged("/", None, "GET", "Host: other.internal", arrival=at(API))

    assert refusal.value.status == 421


def test_a_place_in_clear_is_found_by_clients_that_know_a_proxy() -> None:
    passage = judged("http://clear.internal/v1", None, "GET", "Host: clear.internal")

    assert (passage.authority.host, passage.head.target) == ("kube.example", "/v1")


def test_a_place_inside_tls_is_not_reached_in_clear() -> None:
    with pytest.raises(Refusal) as refusal:
        judged("http://api.internal:443/v1", a_live_run(NetworkPolicy("strict")), "GET", "Host: api.internal:443")

    assert refusal.value.status == 403


def test_an_endpoint_that_was_taken_away_is_said_to_be_gone() -> None:
    with pytest.raises(Refusal) as refusal:
        judged("/", LiveRun.of(a_run()), "GET", "Host: api.internal", arrival=at(API))

    assert (refusal.value.status, refusal.value.kind) == (404, "endpoint")


def connected(target: str, run: LiveRun) -> object:
    return connect_anywhere(run, read_request(f"CONNECT {target} HTTP/1.1\r\nHost: {target}"), a_trail())


def test_a_connect_to_a_place_needs_no_leave_and_one_to_elsewhere_does() -> None:
    run = a_live_run(NetworkPolicy("strict", ("a.example",)))

    assert connected("db.internal:5432", run) == Tcp("db.internal", 5432, tls=False)
    assert connected("a.example:443", run) == Authority("https", "a.example", 443)
    with pytest.raises(Refusal):
        connected("db.internal:5433", run)


def test_a_closed_run_has_no_places() -> None:
    with pytest.raises(Refusal) as refusal:
        connected("db.internal:5432", a_live_run(is_open=False))

    assert refusal.value.status == 503


def test_a_stream_spends_the_grant_of_its_prelude() -> None:
    passage = judge_stream(a_live_run(NetworkPolicy("strict")), DB, a_trail())

    assert (passage.authority, passage.grants) == (Authority("https", "db.example", 5433), ("db",))


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (a_live_run(NetworkPolicy(rules=(parse_rule("deny * db.example:5433/**"),))), 403),
        (a_live_run(is_open=False), 503),
    ],
    ids=["denied", "closed"],
)
def test_a_stream_is_judged_like_any_host(run: LiveRun, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        judge_stream(run, DB, a_trail())

    assert refusal.value.status == status


def test_what_is_no_stream_is_not_streamed_and_what_is_none_is_not_forwarded() -> None:
    with pytest.raises(Refusal) as refusal:
        judge_stream(a_live_run(), API, a_trail())
    assert refusal.value.status == 421
    with pytest.raises(Refusal) as refusal:
        judged("/", None, "GET", "Host: db.internal:5432", arrival=at(DB))
    assert refusal.value.status == 421


def test_what_answers_itself_leads_nowhere() -> None:
    with pytest.raises(AuthorityRefused):
        upstream_of(WORDS)
    with pytest.raises(Refusal):
        judged("/_moat/words/")


def test_places_are_found_by_name_and_port() -> None:
    run = a_live_run()

    assert place_of(run, "db.internal", 5432) == DB.where
    assert place_of(run, "db.internal", 443) is None
    assert endpoint_at(run, SOCKET.where) == SOCKET
    assert endpoint_at(run, UnixPath("/run/kube/other.sock")) is None


MCP = Endpoint(ProxyPath("/mcp/linear/"), Forward(Upstream("mcp.example.com", path="/v1/mcp"), ()), "linear")


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/mcp/linear", "/v1/mcp"),
        ("/mcp/linear?a=b", "/v1/mcp?a=b"),
        ("/mcp/linear/", "/v1/mcp/"),
        ("/mcp/linear/below?a=b", "/v1/mcp/below?a=b"),
    ],
)
def test_an_mcp_server_is_at_its_name_and_has_its_own_path(target: str, wanted: str) -> None:
    run = LiveRun.of(replace(a_run(), endpoints=(MCP,)))

    assert judged(target, run, "POST").head.target == wanted


@pytest.mark.parametrize(
    ("path", "target", "wanted"),
    [
        ("/", "/mcp/linear", "/"),
        ("", "/mcp/linear?a", "/?a"),
        ("/mcp/", "/mcp/linear", "/mcp/"),
        ("/mcp/", "/mcp/linear/below", "/mcp/below"),
    ],
)
def test_an_mcp_server_s_final_slash_is_kept_and_never_doubled(path: str, target: str, wanted: str) -> None:
    server = Endpoint(MCP.where, Forward(Upstream("mcp.example.com", path=path), ()), "linear")

    assert judged(target, LiveRun.of(replace(a_run(), endpoints=(server,))), "POST").head.target == wanted


@pytest.mark.parametrize(
    "below",
    ["/../admin", "/x/../../admin", "/%2e%2e/admin", "/..%2fadmin", "/..%5cadmin", "/..;x/admin", "/%252e%252e/admin",
     "/..\\admin", "/..", "/%2E%2e?a", "/x%00", "//x"],
)  # fmt: skip
def test_nothing_climbs_out_of_the_path_that_a_credential_is_for(below: str) -> None:
    run = LiveRun.of(replace(a_run(), endpoints=(MCP, KUBE)))

    with pytest.raises(Refusal) as refusal:
        judged(f"/mcp/linear{below}", run)
    assert refusal.value.status == 400
    assert judged(f"/_moat/kube{below}", run).head.target == below
    assert judged("/mcp/linear/x?a=../..%2f", run).head.target == "/v1/mcp/x?a=../..%2f"


@pytest.mark.parametrize("target", ["/mcp/linear2", "/mcp/lin", "/mcp", "/mcp/", "/MCP/linear", "/mcp%2Flinear"])
def test_another_path_is_no_mcp_server(target: str) -> None:
    run = LiveRun.of(replace(a_run(), endpoints=(MCP,)))

    assert asked_of(run, PROXY, read_request(f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:19080")) is None


LOCAL = Endpoint(Tcp("db.host.moat.internal", 5432, tls=False), OnHost(5432))


def a_run_with_a_port(policy: NetworkPolicy | None = None) -> LiveRun:
    return LiveRun.of(replace(a_run(policy=policy), endpoints=(LOCAL,)))


def test_a_port_of_this_machine_takes_requests_and_streams_under_its_name() -> None:
    run, name = a_run_with_a_port(NetworkPolicy("strict")), Authority("http", "db.host.moat.internal", 5432)
    stream = judge_stream(run, LOCAL, a_trail())
    request = judged("http://db.host.moat.internal:5432/x", run, "GET", f"Host: {name.host}:5432")

    assert (stream.authority, request.authority) == (name, name)
    assert stream.upstream == request.upstream == Upstream("127.0.0.1:5432", tls=False, is_here=True)
    assert revoked(run, stream) == revoked(run, request) == ""
    assert revoked(a_live_run(), stream) == "its endpoint is gone"


def test_a_rule_keeps_a_port_of_this_machine_in() -> None:
    run = a_run_with_a_port(NetworkPolicy(rules=(parse_rule("deny db.host.moat.internal"),)))

    with pytest.raises(Refusal, match="denied by the rule"):
        judge_stream(run, LOCAL, a_trail())


@pytest.mark.parametrize("host", ["host.moat.internal:5432", "db.host.moat.internal:5433", "x.host.moat.internal:1"])
def test_every_other_name_and_port_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(Refusal, match="is not open to this run") as caught:
        judged(f"http://{host}/", a_run_with_a_port(), "GET", f"Host: {host}")

    assert caught.value.status == 403
