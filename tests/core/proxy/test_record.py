from __future__ import annotations

import json
from dataclasses import replace

import pytest
from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.net.policy import Objection
from moat.proxy.forwarded import lines_of, packed
from moat.proxy.record import (
    MAX_PATH_CHARS,
    MAX_QUERY_KEYS,
    Trail,
    beginning_of,
    line_of,
    line_with,
    new_id,
    new_numbers,
    query_keys,
    record_of,
    without_query,
)
from moat.proxy.refusal import Refusal, denied, late, malformed, undialable


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
    trail.introduce("1.1", {"x-request-id": ('odd"id',)})
    trail.decision, trail.rule, trail.injected, trail.replaced = "allow", "permissive", ("Authorization",), 1
    trail.answered(201)
    trail.request_bytes, trail.response_bytes = 5, 7
    trail.forwarded()

    line = line_with(beginning_of(trail), 201, 5, 7, 2)
    lines = lines_of([line, line], new_numbers(2), 2 * packed(1.25, 1.5, 1.0)).splitlines()
    made, again = map(record_of, lines)
    assert made == replace(records[0], id=made.id, first_byte_ms=1.0, duration_ms=1.5, scrubbed=2)
    assert made.at == "1970-01-01T00:00:01.250+00:00"
    assert len({records[0].id, made.id, again.id, new_id()}) == 4
    assert json.loads(lines[0]).keys() == json.loads(line_of(made)).keys()


def test_a_record_says_what_the_client_calls_its_request_and_which_keys_its_query_has() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect")
    trail.introduce("2", {"x-request-id": ("c" * 200,)}, lambda text: text.upper())
    trail.ask("GET", "/x?page=2&token=s3cr3t&s3cr3t&page=3&a%20b=1&" + "k" * 65 + "=1")
    trail.forwarded()

    (record,) = records
    assert (record.protocol, record.client_id) == ("h2", "C" * 128)
    assert record.query_keys == ("page", "token", "a%20b")
    assert record.id.startswith("req_")


def test_the_keys_of_a_query_are_as_many_as_people_read() -> None:
    assert len(query_keys("/?" + "&".join(f"k{number}=v" for number in range(100)))) == MAX_QUERY_KEYS


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (denied(Objection("no", "--allow-host x", "deny * x")), ("deny", "deny * x", "policy")),
        (denied(Objection("no", "--allow-host x")), ("deny", "strict", "policy")),
        (denied(Objection("no", why="metadata")), ("deny", "metadata", "policy")),
        (undialable("x", "10.0.0.1", "private"), ("deny", "address", "address")),
        (late("slow"), ("allow", "permissive", "timeout")),
        (malformed("two Hosts"), ("allow", "permissive", "malformed")),
    ],
)
def test_a_record_says_who_decided_and_what_went_wrong(refusal: Refusal, expected: tuple[str, ...]) -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect", decision="allow", rule="permissive")

    trail.refused(refusal)

    assert (records[0].decision, records[0].rule, records[0].error) == expected


def test_what_was_cut_or_never_came_has_a_word_for_programs() -> None:
    records: list[ExchangeRecord] = []
    Trail(records.append, "run_1", "connect").forwarded("the client went away")
    Trail(records.append, "run_1", "connect").failed("the client went away")
    Trail(records.append, "run_1", "connect").forwarded()

    assert [record.error for record in records] == ["cut", "broken", ""]


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
