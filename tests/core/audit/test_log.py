from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from moat.api.errors import AuditUnwritable
from moat.audit.chain import ENDED, INSTALLATION, RUN_ENDED, RUN_STARTED, STARTED, check
from moat.audit.log import AuditLog
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin

from core.audit.making import HAPPENED, KEY, LIVE, RUN, a_note, made, seal


def kinds(path: Path, chain: str) -> list[str]:
    with AuditReader(path) as reader:
        return [entry.kind for entry in reader.entries(chain)]


def test_a_runs_beginning_and_end_stand_in_the_installations_chain_too(tmp_path: Path) -> None:
    path = tmp_path / "home" / "audit.db"
    with closing(AuditLog(path)) as log:
        assert log.append([a_note(RUN, STARTED), a_note(RUN, "used")]) == [True, True]
        assert log.open_runs == [RUN]
        assert log.append([a_note(RUN, ENDED)]) == [True]
        assert log.open_runs == []

    assert kinds(path, RUN) == [STARTED, "used", ENDED]
    assert kinds(path, INSTALLATION) == [RUN_STARTED, RUN_ENDED]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_that_is_over_or_never_began_takes_nothing(tmp_path: Path) -> None:
    with closing(AuditLog(tmp_path / "audit.db")) as log:
        assert log.append([a_note(RUN, "used")]) == [False]
        assert log.append([a_note(RUN, STARTED), a_note(RUN, STARTED), a_note(RUN, ENDED)]) == [True, False, True]
        assert log.append([a_note(RUN, "used"), a_note(LIVE, STARTED)]) == [False, True]
        seal(log, 1)
        assert log.append([a_note(RUN, STARTED), a_note(RUN, "used")]) == [False, False]


def test_the_next_writer_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    for notes in ([a_note(RUN, STARTED)], [a_note(RUN, "used")], [a_note(RUN, "used"), a_note(RUN, ENDED)]):
        with closing(AuditLog(path)) as log:
            log.append(notes)
            seal(log, log.counter() + 1)

    with AuditReader(path) as reader:
        assert reader.verify(Pin(KEY)).is_whole
        assert len(list(reader.entries(RUN))) == 4
    with closing(AuditLog(path)) as log:
        assert (log.open_runs, log.unsealed(), log.counter()) == ([], {}, 3)


def test_what_cannot_be_written_leaves_nothing_and_the_next_follows_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with closing(AuditLog(path)) as log:
        log.append(HAPPENED[:4])
        log._db.execute("PRAGMA max_page_count = 1")  # SQLite's own full disk
        with pytest.raises(AuditUnwritable, match="no space left"):
            log.append([a_note(RUN, "used", text="x" * 100_000), a_note(RUN, ENDED)])
        assert log.open_runs == [RUN]
        log._db.execute("PRAGMA max_page_count = 100000")
        log.append([a_note(RUN, "used"), a_note(RUN, ENDED)])

    with AuditReader(path) as reader:
        assert [check(chain, reader.entries(chain))[1] for chain in (RUN, INSTALLATION)] == [None, None]
    assert kinds(path, RUN)[-2:] == ["used", ENDED]


def test_a_folder_that_others_may_change_is_told_with_what_to_type(tmp_path: Path) -> None:
    (folder := tmp_path / "full").mkdir()
    folder.chmod(0o777)

    with pytest.raises(AuditUnwritable, match=f"full can be written by others; run: chmod 700 {folder}"):
        AuditLog(folder / "audit.db")


def test_entries_of_somebody_else_stop_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with closing(AuditLog(path)) as log:
        log.append([a_note(RUN, STARTED)])
        with closing(sqlite3.connect(path)) as other:
            other.execute("INSERT INTO entries VALUES (?, 2, '', 'used', '{}', '', '')", (RUN,))
            other.commit()
        with pytest.raises(AuditUnwritable, match="somebody else"):
            log.append([a_note(RUN, "used")])


def test_what_is_no_log_is_set_aside_and_a_later_format_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"garbage" * 1000)
    with closing(AuditLog(path)) as log:
        log.append([a_note(INSTALLATION, "granted")])
    assert path.with_name("audit.db.broken").read_bytes().startswith(b"garbage")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(AuditUnwritable, match="newer version of moat"):
        AuditLog(path)


WRITER = """
import itertools, sys
from pathlib import Path
from moat.audit.log import AuditLog
from core.audit.making import RUN, a_note, seal
from moat.audit.chain import STARTED

log = AuditLog(Path(sys.argv[1]))
log.append([a_note(RUN, STARTED)])
print("ready", flush=True)
for number in itertools.count():
    log.append([a_note(RUN, "used", number=number), a_note("installation", "granted", number=number)])
    if number % 3 == 0:
        seal(log, log.counter() + 1)
"""


@pytest.mark.parametrize("wait_s", [0.0, 0.013, 0.031, 0.057, 0.071])
def test_a_writer_killed_between_any_two_writes_leaves_a_valid_prefix(tmp_path: Path, wait_s: float) -> None:
    path = tmp_path / "audit.db"
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": tests}) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        try:
            writer.wait(wait_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)

    with AuditReader(path) as reader:
        report = reader.verify(Pin(KEY))
        entries = list(reader.entries(RUN))
    assert report.is_whole, report.faults
    assert report.is_closed is False
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    with closing(AuditLog(path)) as log:
        log.append([a_note(RUN, ENDED)])
        seal(log, log.counter() + 1)
    with AuditReader(path) as reader:
        assert reader.verify(Pin(KEY)).is_whole


def test_the_heads_of_a_run_that_is_over_and_signed_need_no_memory(tmp_path: Path) -> None:
    made(tmp_path / "audit.db")
    with closing(AuditLog(tmp_path / "audit.db")) as log:
        assert set(log.tips()) == {INSTALLATION, LIVE}
        assert log.unsealed() == {}
