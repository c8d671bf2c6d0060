from __future__ import annotations

import pytest
from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.proxy.record import MAX_PATH_CHARS, Trail, without_query
from moat.proxy.refusal import malformed


def test_a_trail_ends_exactly_once() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect", "GET")
    trail.aim(Authority("https", "a.example", 443))
    trail.ask("GET", "/x?token=s3cr3t")
    trail.status = 200

    trail.forwarded()
    trail.failed("later")

    (record,) = records
    assert (record.method, record.host, record.path, record.status) == ("GET", "a.example", "/x", 200)
    assert record.outcome == "forwarded"
    assert record.duration_ms >= 0
    assert record.at.endswith("+00:00")


def test_a_refusal_brings_status_reason_and_outcome() -> None:
    records: list[ExchangeRecord] = []
    Trail(records.append, "run_1", "http").refused(malformed("two Hosts"))

    assert (records[0].status, records[0].reason, records[0].outcome) == (400, "two Hosts", "refused")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b=s3cr3t", "/a"),
        ("/a#s3cr3t", "/a"),
        ("http://user:s3cr3t@a.example/p?q", "/p"),
        ("http://a.example", "/"),
        ("*", "*"),
        ("/" + "x" * 9000, "/" + "x" * (MAX_PATH_CHARS - 1)),
    ],
)
def test_a_recorded_path_has_no_query_no_userinfo_and_a_bound(target: str, path: str) -> None:
    assert without_query(target) == path
