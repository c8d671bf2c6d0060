from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.api.rules import Match, Price, ReadUsage
from moat.api.runs import ExchangeRecord
from moat.proxy import usage as module
from moat.proxy.bodies import reader_for
from moat.proxy.http1 import CHUNKED, Response
from moat.proxy.record import Trail, Usage, record_of
from moat.proxy.usage import Meter, metered, usage_rules

RULE = ReadUsage(
    Match("llm.example", ("POST",), ("/v1/say",)),
    model=("model", "message.model"),
    input=("usage.in", "message.usage.in"),
    output=("usage.out", "message.usage.out"),
    cached=("usage.cached", "message.usage.cached"),
    written=("usage.written",),
    prices=(Price("big-1", 3.0, 15.0, 0.3, 4.0),),
)
APART = replace(RULE, is_apart=True, written=())
STREAM = b"".join(
    f"event: {kind}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()
    for kind, data in (
        ("start", {"message": {"model": "big-1-20260131", "usage": {"in": 1000, "cached": 400, "out": 1}}}),
        ("delta", {"delta": {"text": 'they say "usage"'}}),
        ("delta", {"usage": {"out": 200}}),
    )
)
READ = Usage("big-1-20260131", 1000, 200, 400, 0.00492)


def read(rule: ReadUsage, data: bytes, *, is_stream: bool = False, size: int = 7) -> Usage:
    meter = Meter(rule, is_stream=is_stream)
    for at in range(0, len(data), size):
        meter.feed(data[at : at + size])
    return meter.usage()


def an_answer(usage: object, model: object = "big-1") -> bytes:
    return json.dumps({"model": model, "usage": usage}).encode()


@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_a_stream_is_read_however_it_is_cut(size: int) -> None:
    assert read(RULE, STREAM, is_stream=True, size=size) == READ


def test_an_answer_is_read_at_its_end() -> None:
    answer = an_answer({"in": 1000, "cached": 400, "written": 100, "out": 200})

    assert read(RULE, answer) == Usage("big-1", 1000, 200, 400, 0.00502)


def test_a_cache_that_is_counted_apart_is_added() -> None:
    assert read(APART, an_answer({"in": 600, "cached": 400, "out": 200})) == Usage("big-1", 1000, 200, 400, 0.00492)


@pytest.mark.parametrize("model", ["big-1", "big-1-latest", "big-1-20260131", "big-1-2026-01-31"])
def test_a_model_has_one_price_whatever_its_date(model: str) -> None:
    assert read(RULE, an_answer({"in": 1_000_000}, model)).cost_usd == 3.0


@pytest.mark.parametrize("model", ["big-1-mini", "big-11", "big", "big-1.5"])
def test_a_model_that_is_not_known_costs_nothing_that_is_known(model: str) -> None:
    assert read(RULE, an_answer({"in": 1_000_000}, model)) == Usage(model, 1_000_000)


@pytest.mark.parametrize(
    "data",
    [b"", b'{"usage"', b'"usage"', b'["usage"]', b'{"usage": "much"}', b"[" * 100_000 + b'"usage"',
     b'{"model": 7, "usage": {"in": -1, "out": true}}', b'{"model": "a\\u001bb", "usage": {}}',
     b'{"usage": {"in": 1e999, "out": "5", "cached": 9000000000000}}'],
)  # fmt: skip
def test_what_makes_no_sense_is_not_read(data: bytes) -> None:
    assert read(RULE, data, size=10_000) == Usage()
    assert read(RULE, b"data: " + data + b"\n\n", is_stream=True, size=10_000) == Usage()


def test_what_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 400)
    long = b"data: " + b"x" * 500 + b'"usage"\n'

    assert read(RULE, an_answer({"in": 1}) + b" " * 500) == Usage()
    assert read(RULE, long + STREAM + long, is_stream=True) == READ


HEAD = RequestHead("POST", Authority("https", "llm.example", 443), "/v1/say?beta=true")


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [("POST", "/v1/say?beta=true", (RULE,)), ("GET", "/v1/say", ()), ("POST", "/v1/models", ())],
)
def test_a_rule_reads_the_answers_that_it_is_for(method: str, target: str, expected: Sequence[ReadUsage]) -> None:
    assert usage_rules([RULE], RequestHead(method, HEAD.authority, target)) == expected


def a_response(kind: str, status: int = 200) -> Response:
    return Response(ResponseHead(status, Headers((("Content-Type", kind),)), "OK"), CHUNKED, {})


@pytest.mark.parametrize(
    ("rules", "response"),
    [((), a_response("application/json")), ((RULE,), a_response("text/html")),
     ((RULE,), a_response("application/json", 400))],
)  # fmt: skip
def test_nothing_else_is_looked_at(rules: Sequence[ReadUsage], response: Response) -> None:
    reader, trail = reader_for(CHUNKED), Trail(lambda _: None, "run_1", "connect")

    assert metered(rules, response, reader, trail) is reader
    assert trail.meter is None


def test_what_was_read_stands_in_the_record_though_the_answer_is_cut() -> None:
    records: list[ExchangeRecord] = []
    trail = Trail(records.append, "run_1", "connect")
    reader = metered((RULE,), a_response("text/event-stream; charset=utf-8"), reader_for(CHUNKED), trail)
    buffer = bytearray(f"{len(STREAM):x}\r\n".encode() + STREAM + b"\r\n")

    assert reader.take(buffer) == STREAM
    assert not reader.is_done
    trail.forwarded("the client went away")

    (record,) = records
    assert (record.model, record.input_tokens, record.output_tokens) == ("big-1-20260131", 1000, 200)
    assert (record.cached_tokens, record.cost_usd) == (400, 0.00492)


def test_a_body_that_is_metered_is_read_to_its_end_as_it_is() -> None:
    trail = Trail(lambda _: None, "run_1", "connect")
    reader = metered((RULE,), a_response("application/json"), reader_for(CHUNKED), trail)

    assert reader.take(bytearray(b"2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n")) == b"{}"
    assert (reader.is_done, reader.has_more, reader.trailers) == (True, False, [("X-Sum", "1")])
    assert reader.end() == b""
    assert record_of('{"run_id":"r","at":"","via":"","method":"","scheme":"","host":"","port":1,"path":"","status":1,'
                     '"outcome":"forwarded"}').cost_usd == 0.0  # fmt: skip
