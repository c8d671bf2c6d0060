from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from moat.api.errors import MoatError
from moat.audit.chain import INSTALLATION, Tip
from moat.audit.log import AuditLog
from moat.audit.reading import AuditReader

from core.audit.making import LIVE, RUN, a_note, made


def test_it_is_read_while_it_is_written_and_as_of_one_moment(tmp_path: Path) -> None:
    log = made(tmp_path / "audit.db")
    with closing(AuditLog(log.path)) as writer, AuditReader(log.path) as reader:
        before = reader.tip(LIVE)
        writer.append([a_note(LIVE, "used")])
        assert reader.tip(LIVE) == before
        assert reader.chains() == [INSTALLATION, RUN, LIVE]
        assert [entry.seq for entry in reader.entries(LIVE, after=1)] == [2, 3]
        assert reader.tip("run_00000000000c") == Tip()
        assert reader.head("run_00000000000c") is None
        head = reader.head(RUN)
        assert head is not None
        assert head.chain == RUN
    with AuditReader(log.path) as reader:
        assert reader.tip(LIVE).seq == before.seq + 1


def test_what_is_not_there_or_no_log_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with pytest.raises(MoatError, match="nothing was recorded yet"), AuditReader(path):
        pass
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(MoatError, match="cannot be read"), AuditReader(path):
        pass
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE entries (x)")
    with pytest.raises(MoatError, match="cannot be read"), AuditReader(path):
        pass


def test_a_log_of_a_newer_version_is_not_read(tmp_path: Path) -> None:
    log = made(tmp_path / "audit.db")
    with log.changed() as db:
        db.execute("PRAGMA user_version = 2")

    with pytest.raises(MoatError, match="newer version"), AuditReader(log.path):
        pass
