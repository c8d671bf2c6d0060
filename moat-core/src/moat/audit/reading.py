"""The reading end of the log, for whoever may read the file: it may be read while the daemon writes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from moat.api.errors import MoatError
from moat.audit.chain import INSTALLATION, Entry, Tip
from moat.audit.heads import Signed
from moat.audit.log import VERSION, read_chains, read_entries, read_heads
from moat.audit.verify import Pin, Report, verify_log


class AuditReader:
    """One look at a log: all that is asked of it within the block is as of one moment. Raises MoatError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> AuditReader:
        if not self._path.is_file():
            raise MoatError("nothing was recorded yet", hint="run: moat run -- COMMAND")
        self._db = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, isolation_level=None)
        try:
            with self._reading():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                self._db.execute("BEGIN")
                self.heads()
            if version > VERSION:
                raise MoatError(f"{self._path} was written by a newer version of moat", hint="use that version")
        except BaseException:
            self._db.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def chains(self) -> list[str]:
        """Return the names of all chains, the installation's first."""
        with self._reading():
            names = read_chains(self._db)
        return sorted(names, key=lambda name: (name != INSTALLATION, name))

    def entries(self, chain: str, after: int = 0) -> Iterator[Entry]:
        """Yield a chain's entries in order, unchecked."""
        with self._reading():
            yield from read_entries(self._db, chain, after)

    def heads(self) -> list[Signed]:
        """Return the signed heads, unchecked."""
        with self._reading():
            return read_heads(self._db)

    def head(self, chain: str) -> Signed | None:
        """Return a chain's signed head, None for none."""
        return next((head for head in self.heads() if head.chain == chain), None)

    def tip(self, chain: str) -> Tip:
        """Return where a chain ends."""
        query = "SELECT seq, hash FROM entries WHERE chain = ? ORDER BY seq DESC LIMIT 1"
        with self._reading():
            row = self._db.execute(query, (chain,)).fetchone()
        return Tip(int(row[0]), str(row[1])) if row else Tip()

    def verify(self, pin: Pin) -> Report:
        """Return what is to be said of the whole log."""
        return verify_log({chain: self.entries(chain) for chain in self.chains()}, self.heads(), pin)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as failure:
            problem = f"{self._path} cannot be read: {failure}"
            raise MoatError(problem, hint="what is left of it: sqlite3 FILE .recover") from None
