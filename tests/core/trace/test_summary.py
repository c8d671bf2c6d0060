from __future__ import annotations

from dataclasses import replace

from moat.api.runs import ExchangeRecord
from moat.trace.summary import HostTotal, ModelTotal, Summary, summary

ONE = ExchangeRecord(
    "run_1", "", "connect", "GET", "https", "b.example", 443, "/", 200, "forwarded", grants=("github",),
    request_bytes=5, response_bytes=7, duration_ms=10.0,
)  # fmt: skip
CALL = replace(ONE, model="big-1", input_tokens=9, cached_tokens=2, output_tokens=3, cost_usd=0.1)


def test_the_busiest_host_comes_first_and_denials_take_no_time() -> None:
    other = replace(ONE, host="a.example", outcome="denied", error="policy", duration_ms=99.0, grants=())
    cut = replace(ONE, error="cut", duration_ms=30.0)

    totals = summary([other, ONE, cut], missing=4)

    assert totals.hosts == (
        HostTotal("b.example", 2, 0, 1, 10, 14, 20.0, 30.0, ("github",)),
        HostTotal("a.example", 1, 1, 0, 5, 7, 0.0, 0.0),
    )
    assert (totals.total.requests, totals.total.request_bytes, totals.missing) == (3, 15, 4)


def test_models_are_summed_up() -> None:
    assert summary([CALL, CALL, ONE]).models == (ModelTotal("big-1", 2, 18, 4, 6, 0.2),)


def test_nothing_comes_to_nothing() -> None:
    assert summary([]) == Summary(HostTotal("total", 0, 0, 0, 0, 0, 0.0, 0.0))
