from __future__ import annotations

import os
from dataclasses import replace

import pytest
from moat.audit.chain import Entry, Fault, Tip, linked
from moat.audit.verify import Report
from moat.cli.audit_words import as_json, as_rows, details, remarks, verdict

from core.audit.making import AT, RUN

KEY = "ab" * 32


def an_entry(kind: str, **facts: object) -> Entry:
    return linked(RUN, Tip(), AT, kind, facts)


def test_an_entry_is_a_line_that_says_who_where_and_how_often() -> None:
    used = an_entry("used", grant="github", authority="https://api.github.com", via="connect", tunnel=3)
    again = an_entry("used-again", uses=[{"grant": "github", "authority": "https://api.github.com", "count": 7}])
    denials = [{"authority": "https://evil.test", "why": "strict policy", "count": 2}]
    denied = an_entry("denied", denials=denials, more=5)
    first, last = "2026-01-01T10:11:12.345+00:00", "2026-01-01T10:11:14.345+00:00"
    guessing = [
        {"address": "127.0.0.1", "wrong": 9, "missing": 0, "first": first, "last": last},
        {"address": "10.0.0.9", "run": RUN, "wrong": 2, "missing": 1, "first": first, "last": last},
    ]
    guessed = an_entry("guessed", **{"from": guessing, "more": 4})
    other = an_entry("started", name="otter", grants=["a", "b"], door=True, plan="f" * 64, profile="", gone=None)

    assert details(used) == "github at https://api.github.com (connect, tunnel 3)"
    together = an_entry("used", grant="github", authority="https://api.github.com", via="connect", tunnels=[3, 4])
    assert details(together) == "github at https://api.github.com (connect, tunnels 3, 4)"
    assert details(again) == "github at https://api.github.com x7"
    assert details(denied) == "https://evil.test x2: strict policy, and 5 more"
    assert details(guessed) == (
        "127.0.0.1: 9 wrong tokens, 2026-01-01T10:11:12 to 10:11:14, "
        f"10.0.0.9 at {RUN}: 2 wrong tokens and 1 without one, 2026-01-01T10:11:12 to 10:11:14, and 4 more"
    )
    assert details(other) == "door true, grants a b, name otter, plan ffffffffffff…"


@pytest.mark.parametrize("facts", ["{}", "[]", "none", '{"grant":1}', '{"uses":1}'])
def test_facts_that_somebody_changed_are_shown_as_they_are(facts: str) -> None:
    for kind in ("used", "used-again", "denied", "guessed"):
        assert details(replace(an_entry(kind), facts=facts)) == f"not what moat writes: {facts}"


def test_a_table_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = an_entry("started", name="x" * 500)
    assert len(as_rows([entry])[0][3]) > 500
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")

    (row,) = as_rows([entry])

    assert len("  ".join((row[0].ljust(2), row[1], row[2].ljust(4), row[3]))) <= 80
    assert row[3].endswith("…")
    assert os.environ["COLUMNS"] == "80"


def test_a_verdict_names_the_first_bad_entry() -> None:
    report = Report((Fault(RUN, 3, "it was changed"), Fault(RUN, 9, "it is missing")), 2, 12)

    assert verdict(report, KEY) == f"not whole: {RUN}, entry 3: it was changed; 1 more"
    assert as_json(report, KEY)["ok"] is False
    assert as_json(report, KEY)["first_bad"] == {"chain": RUN, "seq": 3, "problem": "it was changed"}
    whole = Report((), 2, 12, is_pinned=True, is_closed=True)
    assert verdict(whole, KEY) == f"whole: 12 entries in 2 chains, signed by the key {KEY}"
    assert (as_json(whole, KEY)["ok"], as_json(whole, KEY)["first_bad"]) == (True, None)


def test_what_a_verdict_does_not_cover_is_said() -> None:
    assert remarks(Report(is_pinned=True, is_closed=True), is_served=False) == []
    assert remarks(Report(is_pinned=True, is_closed=False), is_served=True) == []
    said = remarks(Report(unsealed=3, is_closed=False), is_served=False)
    assert len(said) == 3
    assert said[0].startswith("3 entries are not signed yet")
    assert "did not end as it should" in said[1]
    assert "--key" in said[2]
