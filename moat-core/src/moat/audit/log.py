"""The log: `audit.db`, an SQLite file with one writer, the daemon. Blocking, and used by one thread at a time.

    entries   (chain, seq, at, kind, facts, prev, hash)   only ever added to
    heads     (chain, statement, signature)               the latest signed head of each chain

WAL with synchronous=FULL: what append has returned from outlives a loss of power, and a killed writer leaves what it
had committed. A run's first and last entry bring one of the installation's chain with them, in the same transaction.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from moat.api.errors import AuditUnwritable, UsageError
from moat.audit.chain import ENDED, INSTALLATION, RUN_ENDED, RUN_STARTED, STARTED, Entry, Tip, linked
from moat.audit.heads import Signed, read
from moat.paths import private_folder, set_aside

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    chain TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL, facts TEXT NOT NULL,
    prev TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (chain, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (
    chain TEXT PRIMARY KEY, statement TEXT NOT NULL, signature TEXT NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "chain, seq, at, kind, facts, prev, hash"
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 # ours
_BUSY_S = 5.0
_CHECKPOINT_PAGES = 128  # then the WAL is written over: a sync of a file that grows costs twice the time (measured)

log = logging.getLogger(__name__)

Row: TypeAlias = tuple[str, int, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be entered. chain: a run's id, or INSTALLATION."""

    chain: str
    at: str
    kind: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Chain:
    """An open chain, or one whose end is not signed yet. sealed: up to where it is signed."""

    tip: Tip
    sealed: int = 0
    is_over: bool = False


class AuditLog:
    """The writing end. Raises AuditUnwritable when it cannot write; nothing of that call is there then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            private_folder(path.parent)
            self._db = _opened_or_anew(path)
        except (OSError, UsageError, sqlite3.Error) as failure:
            raise _unwritable(failure) from None
        try:
            self._chains = {chain: found for chain, found in self._found() if _needs_attention(found)}
            self._chains.setdefault(INSTALLATION, _Chain(Tip()))
        except (sqlite3.Error, ValueError) as failure:
            self._db.close()
            raise _unwritable(failure) from None

    def close(self) -> None:
        """Let go of the file. What was written is there."""
        self._db.close()

    @property
    def open_runs(self) -> list[str]:
        """The runs that have begun and are not over."""
        return [name for name, chain in self._chains.items() if not chain.is_over and name != INSTALLATION]

    def append(self, notes: Sequence[Note]) -> list[bool]:
        """Enter notes, all or none; return of each whether its chain took it: that of a run that is over does not."""
        chains = dict(self._chains)
        taken: list[bool] = []
        rows: list[Row] = []
        with self._transaction():
            for note in notes:
                taken.append(self._takes(chains, note))
                if taken[-1]:
                    _enter(chains, note, rows)
            self._db.executemany(_INSERT, rows)
        self._chains = chains
        return taken

    def tips(self) -> dict[str, Tip]:
        """Return where the chains end that are open."""
        return {name: chain.tip for name, chain in self._chains.items() if not chain.is_over}

    def unsealed(self) -> dict[str, Tip]:
        """Return where the chains end that went on since they were signed."""
        return {name: chain.tip for name, chain in self._chains.items() if chain.sealed < chain.tip.seq}

    def put_heads(self, heads: Iterable[Signed]) -> None:
        """Keep signed heads, each in the place of the one before."""
        signed = list(heads)
        with self._transaction():
            rows = [(head.chain, head.statement, head.signature) for head in signed]
            self._db.executemany("INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", rows)
        chains = dict(self._chains)  # replaced whole, for whoever looks at it from another thread
        for head in signed:
            chain = chains[head.chain] = replace(chains[head.chain], sealed=read(head).tip.seq)
            if not _needs_attention(chain):
                del chains[head.chain]
        self._chains = chains

    def hash_at(self, chain: str, seq: int) -> str:
        """Return the hash of an entry, "" where there is none."""
        row = self._db.execute("SELECT hash FROM entries WHERE chain = ? AND seq = ?", (chain, seq)).fetchone()
        return str(row[0]) if row else ""

    def last_kind(self) -> str:
        """Return of which kind the installation's last entry is, "" where there is none."""
        query = "SELECT kind FROM entries WHERE chain = ? ORDER BY seq DESC LIMIT 1"
        row = self._db.execute(query, (INSTALLATION,)).fetchone()
        return str(row[0]) if row else ""

    def counter(self) -> int:
        """Return the counter of the latest signed head, 0 for none."""
        row = self._db.execute("SELECT chain, statement, signature FROM heads WHERE chain = ?", (INSTALLATION,))
        found = row.fetchone()
        return read(Signed(*found)).counter if found else 0

    def _takes(self, chains: dict[str, _Chain], note: Note) -> bool:
        known = chains.get(note.chain)
        if known is None:
            return note.kind == STARTED and not self.hash_at(note.chain, 1)
        return not known.is_over and (note.kind != STARTED or note.chain == INSTALLATION)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _found(self) -> Iterator[tuple[str, _Chain]]:
        sealed = {head.chain: read(head).tip.seq for head in read_heads(self._db)}
        query = "SELECT seq, hash, kind FROM entries WHERE chain = ? ORDER BY seq DESC LIMIT 1"
        for name in read_chains(self._db):
            seq, digest, kind = self._db.execute(query, (name,)).fetchone()
            is_over = name != INSTALLATION and kind == ENDED
            yield name, _Chain(Tip(int(seq), str(digest)), sealed.get(name, 0), is_over)


def _enter(chains: dict[str, _Chain], note: Note, rows: list[Row]) -> None:
    """Add what a note brings to rows, and to where the chains end."""
    tip = _link(chains, note, rows)
    if note.chain == INSTALLATION:
        return
    if note.kind == STARTED:
        _link(chains, Note(INSTALLATION, note.at, RUN_STARTED, {"run": note.chain, "hash": tip.hash}), rows)
    elif note.kind == ENDED:
        chains[note.chain] = replace(chains[note.chain], is_over=True)
        _link(
            chains, Note(INSTALLATION, note.at, RUN_ENDED, {"run": note.chain, "seq": tip.seq, "hash": tip.hash}), rows
        )


def _link(chains: dict[str, _Chain], note: Note, rows: list[Row]) -> Tip:
    chain = chains.get(note.chain, _Chain(Tip()))
    entry = linked(note.chain, chain.tip, note.at, note.kind, note.facts)
    rows.append((entry.chain, entry.seq, entry.at, entry.kind, entry.facts, entry.prev, entry.hash))
    tip = Tip(entry.seq, entry.hash)
    chains[note.chain] = _Chain(tip, chain.sealed, chain.is_over)
    return tip


class _Transaction:
    """All of a block's writes, or none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as failure:
            raise _unwritable(failure) from None

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        try:
            if failure is None:
                return self._commit()
            self._undo()
        except sqlite3.Error as second:
            raise _unwritable(second) from None
        if isinstance(failure, sqlite3.Error):
            raise _unwritable(failure) from None
        return None

    def _commit(self) -> None:
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._db.in_transaction:  # a full disk may have undone it already
            self._db.execute("ROLLBACK")


def read_chains(db: sqlite3.Connection) -> list[str]:
    """Return the names of all chains, each looked up after the one before it: a log may hold millions of entries."""
    query = """
        WITH RECURSIVE names(chain) AS (
            SELECT MIN(chain) FROM entries
            UNION ALL SELECT (SELECT MIN(chain) FROM entries WHERE chain > names.chain) FROM names
            WHERE names.chain IS NOT NULL)
        SELECT chain FROM names WHERE chain IS NOT NULL"""
    return [str(name) for (name,) in db.execute(query)]


def read_heads(db: sqlite3.Connection) -> list[Signed]:
    """Return every signed head that a log holds."""
    return [
        Signed(*map(str, row)) for row in db.execute("SELECT chain, statement, signature FROM heads ORDER BY chain")
    ]


def read_entries(db: sqlite3.Connection, chain: str, after: int = 0) -> Iterator[Entry]:
    """Yield a chain's entries in order, as they stand there: nothing is checked, not even their types."""
    query = f"SELECT {_COLUMNS} FROM entries WHERE chain = ? AND seq > ? ORDER BY seq"  # noqa: S608 # ours
    for name, seq, at, kind, facts, prev, digest in db.execute(query, (chain, after)):
        yield Entry(str(name), int(seq), str(at), str(kind), str(facts), str(prev), str(digest))


def _opened_or_anew(path: Path) -> sqlite3.Connection:
    """Open the log. What stands in its place and is none is set aside; whoever verifies is told, by the anchor."""
    try:
        return _opened(path)
    except (IsADirectoryError, sqlite3.DatabaseError) as failure:
        if getattr(failure, "sqlite_errorname", "SQLITE_NOTADB") not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise
        log.error("the audit was no database, and was set aside", extra={"path": str(set_aside(path))})
        for name in (f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise OSError(f"a newer version of moat wrote it (format {version})")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if version < VERSION:  # a full disk keeps nobody from opening what is there
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _needs_attention(chain: _Chain) -> bool:
    return not chain.is_over or chain.sealed < chain.tip.seq


def _unwritable(failure: Exception) -> AuditUnwritable:
    text = str(failure)
    if isinstance(failure, sqlite3.IntegrityError):
        text = "somebody else has put entries into it; run: moat audit verify"
    elif (isinstance(failure, sqlite3.Error) and "full" in text) or getattr(failure, "errno", 0) == errno.ENOSPC:
        text = "no space left on the disk"
    elif isinstance(failure, UsageError):
        text = f"{failure.problem}; {failure.hint}"
    return AuditUnwritable(f"the audit cannot be written: {text}", hint="run: moat doctor")
