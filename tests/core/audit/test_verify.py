"""Whatever somebody who can write the file does to it is found, and the first bad entry is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from moat.audit.chain import GAP, INSTALLATION, Entry
from moat.audit.heads import Anchor, public_key_of
from moat.audit.log import AuditLog
from moat.audit.verify import Pin, verify_log

from core.audit.making import HAPPENED, KEY, LIVE, OTHER_SEED, RUN, Made, a_note, made, rebuilt, seal


@pytest.fixture
def log(tmp_path: Path) -> Made:
    return made(tmp_path / "audit.db")


def test_a_log_that_nobody_touched_is_whole(log: Made) -> None:
    report = log.report()

    assert report.faults == ()
    assert (report.chains, report.entries, report.unsealed) == (3, 13, 0)
    assert (report.is_pinned, report.is_closed) == (True, True)


def run_sql(*statements: str) -> Callable[[Made], None]:
    def change(log: Made) -> None:
        with log.changed() as db:
            for statement in statements:
                db.execute(statement.replace("$RUN", RUN).replace("$LIVE", LIVE))

    return change


def without(seq: int) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: [entry for entry in entries if entry.seq != seq]


def first(count: int) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: entries[:count]


MUTATIONS: dict[str, tuple[Callable[[Made], None], tuple[str, int]]] = {
    "an edited fact": (run_sql(
        "UPDATE entries SET facts = replace(facts, 'evil', 'good') WHERE chain = '$RUN' AND seq = 3"), (RUN, 3)),
    "an edited time": (run_sql("UPDATE entries SET at = 'never' WHERE chain = '$LIVE' AND seq = 2"), (LIVE, 2)),
    "an edited kind": (run_sql("UPDATE entries SET kind = 'x' WHERE chain = 'installation' AND seq = 2"),
                       (INSTALLATION, 2)),
    "a deleted entry": (run_sql("DELETE FROM entries WHERE chain = '$RUN' AND seq = 2"), (RUN, 2)),
    "a deleted first entry": (run_sql("DELETE FROM entries WHERE chain = '$RUN' AND seq = 1"), (RUN, 1)),
    "two entries in the other order": (run_sql(
        "UPDATE entries SET seq = 99 WHERE chain = '$RUN' AND seq = 2",
        "UPDATE entries SET seq = 2 WHERE chain = '$RUN' AND seq = 3",
        "UPDATE entries SET seq = 3 WHERE chain = '$RUN' AND seq = 99"), (RUN, 2)),
    "an entry put in between": (run_sql(
        "UPDATE entries SET seq = seq + 90 WHERE chain = '$RUN' AND seq > 2",
        "UPDATE entries SET seq = seq - 89 WHERE chain = '$RUN' AND seq > 2",
        "INSERT INTO entries SELECT chain, 3, at, kind, facts, hash, hash FROM entries "
        "WHERE chain = '$RUN' AND seq = 2"), (RUN, 3)),
    "an entry put in at the end of a run that is over": (run_sql(
        "INSERT INTO entries SELECT chain, 5, at, kind, facts, hash, hash FROM entries "
        "WHERE chain = '$RUN' AND seq = 4"), (RUN, 5)),
    "the tail of an ended run cut": (run_sql("DELETE FROM entries WHERE chain = '$RUN' AND seq > 2"), (RUN, 3)),
    "the tail cut with its head": (run_sql(
        "DELETE FROM entries WHERE chain = '$RUN' AND seq > 2",
        "DELETE FROM heads WHERE chain = '$RUN'"), (RUN, 3)),
    "the tail of a live run cut with its head": (run_sql(
        "DELETE FROM entries WHERE chain = '$LIVE' AND seq > 1",
        "DELETE FROM heads WHERE chain = '$LIVE'"), (LIVE, 2)),
    "the tail of the installation's chain cut": (run_sql(
        "DELETE FROM entries WHERE chain = 'installation' AND seq > 4"), (INSTALLATION, 5)),
    "a run deleted": (run_sql(
        "DELETE FROM entries WHERE chain = '$RUN'", "DELETE FROM heads WHERE chain = '$RUN'"), (RUN, 1)),
    "everything deleted": (run_sql("DELETE FROM entries", "DELETE FROM heads"), (INSTALLATION, 0)),
    "all heads deleted": (run_sql("DELETE FROM heads"), (INSTALLATION, 6)),
    "a run's chain made anew": (lambda log: rebuilt(log, RUN, without(3)), (RUN, 4)),
    "a live run's chain made anew": (lambda log: rebuilt(log, LIVE, first(2)), (LIVE, 3)),
    "the installation's chain made anew": (lambda log: rebuilt(log, INSTALLATION, without(2)), (INSTALLATION, 6)),
    "a run that never was": (run_sql(
        "INSERT INTO entries SELECT 'run_00000000000c', seq, at, kind, facts, prev, hash FROM entries "
        "WHERE chain = '$RUN' AND seq = 1"), ("run_00000000000c", 1)),
    "a head of another chain": (run_sql(
        "UPDATE heads SET (statement, signature) = (SELECT statement, signature FROM heads WHERE chain = '$LIVE') "
        "WHERE chain = '$RUN'"), (RUN, 0)),
    "a head that is none": (run_sql("UPDATE heads SET statement = '{}' WHERE chain = '$RUN'"), (RUN, 0)),
    "an edited head": (run_sql(
        "UPDATE heads SET statement = replace(statement, '\"seq\":4', '\"seq\":3') WHERE chain = '$RUN'"), (RUN, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_change_is_found_and_the_first_bad_entry_named(log: Made, name: str) -> None:
    change, named = MUTATIONS[name]
    change(log)

    faults = log.faults()

    assert faults
    assert faults[0] == named, log.report().faults
    assert all(fault.problem for fault in log.report().faults)


def test_a_log_rebuilt_and_signed_with_another_key_is_found(tmp_path: Path) -> None:
    with closing(AuditLog(tmp_path / "audit.db")) as log:
        log.append([note for note in HAPPENED if note.chain != RUN])
        anchor = seal(log, 1, OTHER_SEED)
    forged = Made(tmp_path / "audit.db", Pin(KEY, anchor))

    assert {fault.chain for fault in forged.report().faults} == {INSTALLATION, LIVE}
    assert "another key" in forged.report().faults[0].problem
    assert forged.faults(Pin(public_key_of(OTHER_SEED))) == []


def test_a_log_put_back_to_an_older_copy_is_found(tmp_path: Path) -> None:
    log = made(tmp_path / "audit.db", happened=HAPPENED[:6])
    shutil.copy(log.path, tmp_path / "copy.db")
    with closing(AuditLog(log.path)) as writer:
        writer.append(HAPPENED[6:])
        pin = Pin(KEY, seal(writer, 2))
    log.path.unlink()
    shutil.copy(tmp_path / "copy.db", log.path)

    assert log.faults() == []  # by itself it is whole
    assert log.faults(pin)[0][0] == INSTALLATION
    assert "older than what is remembered" in log.report(pin).faults[0].problem


def test_a_file_that_is_gone_is_found_by_what_is_remembered() -> None:
    report = verify_log({}, [], Pin(KEY, Anchor(5)))

    assert (report.faults[0].chain, report.faults[0].seq) == (INSTALLATION, 0)
    assert verify_log({}, [], Pin(KEY)).is_whole


def test_a_gap_that_the_daemon_found_stays_found(tmp_path: Path) -> None:
    log = made(tmp_path / "audit.db", happened=[a_note(INSTALLATION, GAP, counter=9), *HAPPENED])

    assert log.faults() == [(INSTALLATION, 1)]


def test_entries_after_the_last_head_are_counted_and_no_fault(log: Made) -> None:
    with closing(AuditLog(log.path)) as writer:
        writer.append([a_note(LIVE, "used"), a_note(INSTALLATION, "granted")])

    report = log.report()

    assert report.is_whole
    assert (report.unsealed, report.is_closed) == (2, False)


def test_without_a_pinned_key_the_chains_are_checked_all_the_same(log: Made) -> None:
    assert log.report(Pin()).is_whole
    assert not log.report(Pin()).is_pinned
    run_sql("DELETE FROM entries WHERE chain = '$RUN' AND seq = 2")(log)
    assert log.faults(Pin())[0] == (RUN, 2)
