"""Read with the values of `harfile`, an implementation of the format by others: what they do not know is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import harfile
import pytest
from moat.api.runs import ExchangeRecord, RunInfo
from moat.trace.har import har, url_of

RUN = RunInfo("run_0123456789ab", "calm-otter", "docker", "strict", (), "/", ("true",), "2026-01-01T00:00:00+00:00")
ONE = ExchangeRecord(
    RUN.run_id, "2026-01-01T00:00:01.500+00:00", "connect", "POST", "https", "api.example.com", 443, "/user", 200,
    "forwarded", request_bytes=5, response_bytes=7, duration_ms=30.0, first_byte_ms=20.0, protocol="http/1.1",
    query_keys=("page",), grants=("github",), id="req_1",
)  # fmt: skip
FAILED = replace(ONE, status=0, outcome="failed", reason="nobody is there", error="upstream", first_byte_ms=0.0)


def archived(*exchanges: ExchangeRecord) -> list[dict[str, Any]]:
    log = json.loads(json.dumps(har(RUN, exchanges, "1.2.3")))["log"]
    assert (log["version"], harfile.Creator(**log["creator"]).name) == (harfile.HAR_VERSION, "moat")
    assert [page["title"] for page in log["pages"]] == ["calm-otter (run_0123456789ab)"]
    for entry in log["entries"]:
        assert entry["pageref"] == log["pages"][0]["id"]
        read(entry)
    return list(log["entries"])


def read(entry: dict[str, Any]) -> tuple[harfile.Request, harfile.Response, harfile.Timings]:
    """Return what stands in an entry as its readers see it. Raises TypeError for what is too much or missing."""
    request, response = entry["request"], {**entry["response"]}
    response.pop("_error", None)
    response["content"] = harfile.Content(**response["content"])
    request = {**request, "queryString": [harfile.Record(**each) for each in request["queryString"]]}
    request["headers"] = [harfile.Record(**each) for each in request["headers"]]
    response["headers"] = [harfile.Record(**each) for each in response["headers"]]
    if "postData" in request:
        request["postData"] = harfile.PostData(**request["postData"])
    harfile.Cache(**entry["cache"])
    return harfile.Request(**request), harfile.Response(**response), harfile.Timings(**entry["timings"])


def test_an_exchange_is_an_entry() -> None:
    (entry,) = archived(ONE)
    request, response, timings = read(entry)

    assert (entry["startedDateTime"], entry["time"]) == ("2026-01-01T00:00:01.500+00:00", 30.0)
    assert (request.method, request.url, request.httpVersion) == ("POST", "https://api.example.com/user", "HTTP/1.1")
    assert [each.name for each in request.queryString] == ["page"]
    assert (request.bodySize, response.bodySize, response.content.size) == (5, 7, 7)
    assert (response.status, response.statusText) == (200, "OK")
    assert (timings.send, timings.wait, timings.receive) == (0, 20.0, 10.0)
    assert entry["_moat"]["grants"] == ["github"]


@pytest.mark.parametrize("exchange", [ONE, FAILED, replace(ONE, method="", protocol="", status=599)])
def test_what_its_parts_took_is_what_it_took(exchange: ExchangeRecord) -> None:
    (entry,) = archived(exchange)

    assert sum(max(each, 0) for each in entry["timings"].values()) == entry["time"]


def test_headers_and_bodies_are_in_it_where_they_were_asked_for() -> None:
    fields = (("Content-Type", "application/json"), ("X", "y"))
    sampled = replace(ONE, request_headers=fields, response_headers=fields, request_body="{}", response_body="[1]")
    (entry,) = archived(sampled)
    request, response, _ = read(entry)

    assert [(each.name, each.value) for each in request.headers] == list(fields)
    assert request.postData == harfile.PostData("application/json", text="{}")
    assert (response.content.mimeType, response.content.text) == ("application/json", "[1]")
    assert "request_body" not in entry["_moat"]


def test_what_failed_says_why() -> None:
    (entry,) = archived(FAILED)

    assert (entry["response"]["status"], entry["response"]["_error"]) == (0, "nobody is there")
    assert entry["comment"] == "nobody is there"


def test_a_name_that_was_kept_in_is_no_request() -> None:
    assert archived(replace(ONE, via="dns")) == []


def test_an_address_says_port_and_scheme_where_they_are_not_the_usual() -> None:
    assert url_of(replace(ONE, host="2001:db8::1", port=8443, path="/")) == "https://[2001:db8::1]:8443/"
    assert url_of(replace(ONE, scheme="http", port=80)) == "http://api.example.com/user"
