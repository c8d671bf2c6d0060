from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.errors import UsageError
from moat.api.runs import ExchangeRecord
from moat.trace.selection import Selection, hosts_of, ranges

FORWARDED = ExchangeRecord(
    "run_1123456789ab", "", "connect", "GET", "https", "api.example.com", 443, "/", 404, "forwarded", duration_ms=999.0
)


@pytest.mark.parametrize(
    ("selection", "takes"),
    [
        (Selection(), True),
        (Selection(hosts=("API.example.com",)), True),
        (Selection(hosts=("*.example.com", "other.example")), True),
        (Selection(hosts=("example.com",)), False),
        (Selection(statuses=ranges(("4xx",))), True),
        (Selection(statuses=ranges(("200-403", "405"))), False),
        (Selection(statuses=ranges(("404",)), hosts=("other.example",)), False),
        (Selection(denied=True), False),
        (Selection(slow=True), False),
    ],
)
def test_everything_asked_for_must_hold(selection: Selection, takes: bool) -> None:
    assert selection.takes(FORWARDED) == takes


def test_a_denial_and_a_second_are_what_they_say() -> None:
    assert Selection(denied=True).takes(replace(FORWARDED, outcome="denied"))
    assert Selection(slow=True).takes(replace(FORWARDED, duration_ms=1_000.0))


@pytest.mark.parametrize("text", ["", "ok", "6xx", "40", "4040", "400-", "4xx-5xx", "499-400"])
def test_what_is_no_status_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        ranges((text,))


@pytest.mark.parametrize("text", ["", "a b", "https://a.example", "a.example/x", "me@a.example"])
def test_what_is_no_host_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        hosts_of((text,))


def test_hosts_are_names_patterns_and_addresses() -> None:
    assert hosts_of(("a.example", "*.a.example", "10.0.0.1", "2001:db8::1")) == (
        "a.example", "*.a.example", "10.0.0.1", "2001:db8::1",
    )  # fmt: skip
    assert hosts_of(()) == ()
