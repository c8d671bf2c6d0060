from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.runs import ExchangeRecord
from moat.cli.trace_table import TITLES, as_rows, cost, count, fitted, host_rows, model_rows, span, usage_words
from moat.trace.summary import summary

FORWARDED = ExchangeRecord(
    run_id="run_1123456789ab", at="2026-02-01T10:11:12.000+00:00", via="connect", method="GET", scheme="https",
    host="api.example.com", port=443, path="/user", status=200, outcome="forwarded", grants=("github",),
    duration_ms=500.0, first_byte_ms=400.0,
)  # fmt: skip
DENIED = replace(
    FORWARDED, at="2026-02-01T10:11:12.500+00:00", host="2001:db8::1", port=8443, outcome="denied", status=403,
    grants=(), reason="strict policy", allow_line="--allow-host [2001:db8::1]:8443", error="policy", first_byte_ms=0.0,
)  # fmt: skip
CALL = replace(
    FORWARDED, model="big-1", input_tokens=12_000, cached_tokens=11_000, output_tokens=340, cost_usd=0.0123
)  # fmt: skip


def test_an_exchange_is_one_readable_row() -> None:
    row = dict(zip(TITLES, as_rows([FORWARDED])[0], strict=True))

    assert row == {
        "AT": "10:11:12", "OUTCOME": "forwarded", "STATUS": "200", "METHOD": "GET",
        "URL": "https://api.example.com/user", "GRANTS": "github", "MS": "500", "WHY": "",
    }  # fmt: skip


def test_a_denial_says_why_and_what_to_add() -> None:
    row = dict(zip(TITLES, as_rows([DENIED])[0], strict=True))

    assert row["URL"] == "https://[2001:db8::1]:8443/user"
    assert row["WHY"] == "strict policy; --allow-host [2001:db8::1]:8443"
    assert row["GRANTS"] == "-"


@pytest.mark.parametrize("width", [40, 48, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(FORWARDED, path="/" + "x" * 500, grants=("a-long-name-of-a-grant", "and-another-one"))

    lines = list(fitted([FORWARDED, long, DENIED], width))

    assert max(len(line.text) for line in lines) <= width
    assert "…" in lines[2].text


def test_a_narrow_terminal_gets_fewer_columns_and_the_url_stays() -> None:
    titles = [next(fitted([FORWARDED, DENIED], width)).text.split() for width in (80, 50, 40)]

    assert titles[0] == ["AT", "METHOD", "STATUS", "URL", "GRANTS", "TIME"]
    assert "GRANTS" not in titles[1]
    assert titles[2][:3] == ["METHOD", "STATUS", "URL"]


def test_a_waterfall_says_when_an_answer_was_waited_for_and_when_it_came() -> None:
    _, first, second = (line.text.partition("▏")[2] for line in fitted([FORWARDED, DENIED], 120))

    assert first == "░░░░░░░░░████"
    assert second == " " * 12 + "░" * 11 + "█"


@pytest.mark.parametrize(("width", "count"), [(80, 2), (120, 1)])
def test_there_is_none_without_room_or_without_anything_to_compare(width: int, count: int) -> None:
    assert "▏" not in "".join(line.text for line in fitted([FORWARDED] * count, width))


def test_what_went_wrong_is_coloured_and_told_in_full() -> None:
    _, denied, call, late = fitted([DENIED, CALL, replace(FORWARDED, status=404)], 60)

    assert (denied.style, call.style, late.style) == ("red", "", "yellow")
    assert denied.notes[0].strip() == "strict policy · --allow-host [2001:db8::1]:8443"
    assert call.notes[0].strip() == usage_words(CALL)


def test_lines_that_come_one_by_one_stand_below_each_other() -> None:
    (_, one), (_, other) = (list(fitted([each], 120, has_waterfall=False)) for each in (FORWARDED, DENIED))

    assert one.text.index("github") == other.text.index("-", 40)
    assert len(one.text) == len(other.text) == 120


def test_a_call_of_a_model_says_its_tokens_and_what_they_cost() -> None:
    assert usage_words(CALL) == "big-1: 12.0k in (11.0k cached), 340 out, about $0.0123"
    assert usage_words(replace(CALL, cached_tokens=0, cost_usd=0.0)) == "big-1: 12.0k in, 340 out"
    assert usage_words(FORWARDED) == ""


def test_totals_have_a_line_for_each_host_and_one_for_all() -> None:
    rows = host_rows(summary([FORWARDED, FORWARDED, DENIED]))

    assert [row[:4] for row in rows] == [
        ("api.example.com", "2", "0", "0"), ("2001:db8::1", "1", "1", "0"), ("total", "3", "1", "0"),
    ]  # fmt: skip
    assert rows[0][6:] == ("500 ms", "500 ms", "github")
    assert len(host_rows(summary([FORWARDED]))) == 1
    assert host_rows(summary([])) == []


def test_models_have_a_line_each() -> None:
    rows = model_rows(summary([CALL, CALL, replace(CALL, model="other", cost_usd=0.0)]).models)

    assert rows == [
        ("big-1", "2", "24.0k", "22.0k", "680", "$0.0246"), ("other", "1", "12.0k", "11.0k", "340", "not known"),
    ]  # fmt: skip


def test_numbers_are_for_people() -> None:
    assert [count(9_999), count(10_000), count(2_500_000)] == ["9,999", "10.0k", "2.50M"]
    assert [span(999), span(1_500), span(180_000)] == ["999 ms", "1.5 s", "3.0 min"]
    assert [cost(0.00012), cost(12.345)] == ["$0.0001", "$12.35"]
