from __future__ import annotations

from moat.api.runs import NetworkPolicy, RunContext
from moat.proxy.admit import LiveRun
from moat.proxy.http1 import read_request
from moat.proxy.server.local import PROBE, local_answer


def a_run(answer: str) -> LiveRun:
    return LiveRun.of(RunContext("run_1", "", NetworkPolicy(), probe_answer=answer))


def test_the_probe_is_answered_before_the_run_is_open() -> None:
    found = local_answer(a_run("nonce"), read_request(f"GET {PROBE} HTTP/1.1\r\nHost: 127.0.0.1"))

    assert found is not None
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\nnonce")


def test_nothing_else_is_the_proxys_own() -> None:
    for first in (f"POST {PROBE}", f"GET {PROBE}?x", f"GET http://a.example{PROBE}", "GET /"):
        assert local_answer(a_run("nonce"), read_request(f"{first} HTTP/1.1\r\nHost: a.example")) is None
    assert local_answer(a_run(""), read_request(f"GET {PROBE} HTTP/1.1\r\nHost: a")) is None
