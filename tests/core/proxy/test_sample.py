from __future__ import annotations

import pytest
from moat.api.http import Headers
from moat.api.rules import Match, SetHeader
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.proxy.admit import Admission
from moat.proxy.http1 import Request
from moat.proxy.record import Trail, line_of, record_of
from moat.proxy.sample import BODY_BYTES, LEFT_OUT, MAX_FIELDS, MAX_VALUE_CHARS, Sample, begin_sample
from moat.proxy.scrub import Scrub

SECRET = "s3cr3t-of-the-run-0123456789"
JSON = {"content-type": ("application/json; charset=utf-8",)}


def a_sample(*headers: tuple[str, str], fields: dict[str, tuple[str, ...]] | None = None) -> Sample:
    return Sample(Scrub([SECRET]), headers, JSON if fields is None else fields)


def test_values_of_headers_that_speak_of_secrets_are_left_out_and_others_lose_those_of_the_run() -> None:
    names = ("Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "X-Auth", "X-CSRF-Token", "X-Amz-Signature")

    shown = dict(
        a_sample(*((name, "own") for name in names), ("X-Echo", f"a {SECRET}"), ("Accept", "x")).request_headers
    )

    assert {shown[name] for name in names} == {LEFT_OUT}
    assert shown["Accept"] == "x"
    assert "s3cr3t" not in shown["X-Echo"]


def test_addresses_in_headers_have_no_query() -> None:
    shown = a_sample(("Referer", "https://a.example/x?code=own"), ("LOCATION", "/y?state=own")).request_headers

    assert shown == (("Referer", "https://a.example/x"), ("LOCATION", "/y"))


def test_headers_are_as_many_and_as_long_as_people_read() -> None:
    shown = a_sample(*((f"X-{number}", "v" * 9_000) for number in range(200))).request_headers

    assert (len(shown), max(len(value) for _, value in shown)) == (MAX_FIELDS, MAX_VALUE_CHARS)


def test_bodies_are_remembered_from_their_beginning_without_secrets_however_they_come() -> None:
    sample = a_sample()
    sample.answer((("Content-Type", "text/plain"),), {"content-type": ("text/plain",)})
    for at in range(0, 60, 7):
        sample.sent(f'{{"token": "{SECRET}", "a": 1}}'.encode()[at : at + 7])
    sample.received(b"x" * BODY_BYTES * 2)

    assert sample.request_body == f'{{"token": "[moat:redacted{"*" * (len(SECRET) - 15)}]", "a": 1}}'
    assert sample.response_body == "x" * BODY_BYTES
    assert sample.response_headers == (("Content-Type", "text/plain"),)


@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_no_part_of_a_secret_is_left_where_a_body_is_cut(cut: int) -> None:
    sample = a_sample()
    sample.sent(b"x" * (BODY_BYTES - cut) + SECRET.encode())

    assert sample.request_body == "x" * (BODY_BYTES - cut)


def test_a_short_body_is_whole_to_its_last_character() -> None:
    sample = a_sample()
    sample.sent(b"ends like a secret: s3cr")

    assert sample.request_body == sample.request_body == "ends like a secret: s3cr"


@pytest.mark.parametrize(
    "fields",
    [{}, {"content-type": ("image/png",)}, {**JSON, "content-encoding": ("gzip",)}],
    ids=["of no kind", "no text", "encoded"],
)
def test_what_cannot_be_read_is_left_out(fields: dict[str, tuple[str, ...]]) -> None:
    sample = a_sample(fields=fields)
    sample.sent(b"\x00\x01")

    assert sample.request_body == ""


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_run_that_asked_for_it_has_it_in_its_records(is_wanted: bool) -> None:
    records: list[ExchangeRecord] = []
    rule = SetHeader(Match("a.example"), "Authorization", f"Bearer {SECRET}")
    admission = Admission()
    admission.put(RunContext("run_1", "", NetworkPolicy(), (rule,), True, trace_bodies=is_wanted))
    run = admission.by_id("run_1")
    assert run is not None
    trail = Trail(records.append, "run_1", "connect")

    begin_sample(run, Request("POST", "/", "1.1", Headers((("X", "y"),)), fields=JSON), trail)
    trail.sent(f"[{SECRET}]".encode())
    trail.forwarded()

    (record,) = records
    assert record.request_bytes == len(SECRET) + 2
    assert record.request_headers == ((("X", "y"),) if is_wanted else ())
    assert bool(record.request_body) is is_wanted
    assert "s3cr3t" not in line_of(record)
    assert record_of(line_of(record)) == record
    assert ("request_headers" in line_of(record)) is is_wanted
