from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.proxy.record import MAX_PATH_CHARS, Line, Trail, line_of, record_of, without_query
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


def test_a_line_is_read_back_as_the_record_it_was_made_of() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect", "GET", grants=("github", 'odd"name'))
    trail.aim(Authority("https", "a.example", 443))
    trail.ask("GET", '/"\n\u00e9?q')
    trail.forwarded()

    assert record_of(line_of(records[0])) == records[0]
    assert "\n" not in line_of(records[0])


def test_a_form_of_a_line_says_what_the_record_would_say() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect", "GET", grants=("github",), at=1.25)
    trail.aim(Authority("https", "a.example", 443))
    trail.ask("GET", '/"x')
    trail.status, trail.request_bytes, trail.response_bytes = 201, 5, 7
    trail.forwarded()

    made = record_of(Line(trail).text(1.25, 201, 5, 7, 0.0015))
    assert made == replace(records[0], duration_ms=1.5)
    assert made.at == "1970-01-01T00:00:01.250+00:00"


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"run_id": 7}', '"text"'])
def test_what_is_no_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        record_of(line)


def test_a_secret_in_a_path_is_not_remembered() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect")
    trail.ask("GET", "/bot-s3cr3t/x?s3cr3t", lambda path: path.replace("s3cr3t", "***"))
    trail.forwarded()

    assert records[0].path == "/bot-***/x"
