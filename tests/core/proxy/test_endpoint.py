from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.http import Authority
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.admit import LiveRun
from moat.proxy.endpoint import authority_of, endpoint_at, judge_endpoint
from moat.proxy.flow import Passage
from moat.proxy.http1 import read_request
from moat.proxy.record import Trail
from moat.proxy.refusal import Refusal
from moat.proxy.revoke import revoked
from support.worker import a_run

RULE = SetHeader(Match("kube.example:6443"), "Authorization", "Bearer s3cr3t", "kube")
KUBE = Endpoint(ProxyPath("/_moat/kube/"), Forward(Upstream("kube.example:6443"), (RULE,)), "kube")
PLAIN = Endpoint(ProxyPath("/_moat/plain/"), Forward(Upstream("kube.example:6443", tls=False), (RULE,)), "kube")


def a_live_run(policy: NetworkPolicy | None = None, *, is_open: bool = True) -> LiveRun:
    return LiveRun.of(replace(a_run(policy=policy, is_open=is_open), endpoints=(KUBE, PLAIN)))


def judged(target: str, run: LiveRun | None = None, method: str = "GET", *lines: str) -> Passage:
    run = run or a_live_run()
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1:19080", *lines])
    endpoint = endpoint_at(run, target)
    assert endpoint is not None
    return judge_endpoint(run, endpoint, read_request(head), Trail(lambda _: None, "run_1", "http"))


@pytest.mark.parametrize(
    "target",
    ["/", "/_moat/", "/_moat/kube", "/_moat/kubernetes/", "/x/_moat/kube/", "http://a.example/_moat/kube/", "*"],
)
def test_another_target_is_for_no_endpoint(target: str) -> None:
    assert endpoint_at(a_live_run(), target) is None


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

    assert authority_of(PLAIN).scheme == "http"
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
    assert run.objection(authority_of(KUBE)) is not None


def test_an_upgraded_connection_lives_as_long_as_its_endpoint() -> None:
    passage = judged("/_moat/kube/exec")

    assert revoked(a_live_run(), passage) == ""
    assert revoked(LiveRun.of(a_run()), passage) == "its endpoint is gone"
