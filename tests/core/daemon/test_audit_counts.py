from __future__ import annotations

from moat.audit.canonical import canonical
from moat.audit.log import Note
from moat.daemon.audit_counts import MAX_SHOWN, SHOWN_AT_ONCE, Counts

from core.daemon.making import OTHER_ID, RUN_ID

AT = "2026-01-01T00:00:00+00:00"
API = "https://api.apple.test"


def test_uses_and_denials_of_a_run_are_one_entry_each_and_counted_once() -> None:
    counts = Counts()
    for _ in range(3):
        counts.used(RUN_ID, "apple", API, 2)
        counts.denied(RUN_ID, "https://evil.test", "strict policy")
    counts.used(OTHER_ID, "pear", API, 1)

    notes = list(counts.taken(AT))

    assert notes == [
        Note(RUN_ID, AT, "used-again", {"uses": [{"grant": "apple", "authority": API, "count": 6}]}),
        Note(RUN_ID, AT, "denied",
             {"denials": [{"authority": "https://evil.test", "why": "strict policy", "count": 3}]}),
        Note(OTHER_ID, AT, "used-again", {"uses": [{"grant": "pear", "authority": API, "count": 1}]}),
    ]  # fmt: skip
    assert list(counts.taken(AT)) == []


def test_a_flood_of_new_names_is_counted_and_not_written_out() -> None:
    counts = Counts()
    told = 0
    for round_ in range(MAX_SHOWN // SHOWN_AT_ONCE + 2):
        for number in range(SHOWN_AT_ONCE + 10):
            counts.denied(RUN_ID, f"https://{round_}-{number}.evil.test", "no")
        (note,) = counts.taken(AT)
        denials, more = note.facts["denials"], note.facts["more"]
        assert isinstance(denials, list)
        assert isinstance(more, int)
        assert len(denials) <= SHOWN_AT_ONCE
        assert len(denials) + more == SHOWN_AT_ONCE + 10
        told += len(denials)

    assert told == MAX_SHOWN


def test_what_a_run_that_is_over_did_is_taken_with_its_end() -> None:
    counts = Counts()
    counts.used(RUN_ID, "apple", API, 1)

    assert [note.kind for note in counts.taken_of(RUN_ID, AT)] == ["used-again"]
    assert list(counts.taken(AT)) == []
    assert list(counts.taken_of(RUN_ID, AT)) == []


def test_names_that_a_run_made_up_can_be_written_down() -> None:
    counts = Counts()
    counts.denied(RUN_ID, "https://\udcff" + "x" * 9_999, "why\ud800")

    (note,) = counts.taken(AT)

    assert len(canonical(note.facts)) < 2_000
