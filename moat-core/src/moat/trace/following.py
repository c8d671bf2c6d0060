"""What is added to a trace while somebody looks, over every file that is put aside meanwhile. Reads only.

network.jsonl, open ─▶ its lines ─▶ put aside? ─ no ─▶ that was all, for now
                                        └ yes ─▶ what came last, then network.N+1.jsonl and so on, then the new one
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moat.api.runs import ExchangeRecord
from moat.trace.network import Gap, entry_of, put_aside_files


class Following:
    """A trace from the beginning of its latest file on. file: that one's path; it need not be there yet. Close it.

    Who looks so seldom that files were dropped meanwhile is told so, by a Gap of 0 where their number is not known.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: BinaryIO | None = None
        self._number = 1  # what the file that is open will be called when it is put aside
        self._half = b""
        self._is_told = False  # whether the last line was about what is missing
        self._open(file)

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def added(self) -> Iterator[ExchangeRecord | Gap]:
        """Yield what has come since."""
        yield from self._read()
        while self._is_put_aside():
            yield from self._read()  # what came between the look before and the file's being put aside
            yield from self._next()

    def _next(self) -> Iterator[ExchangeRecord | Gap]:
        """Take the file after the one that is open, and yield what it has.

        The latest is opened first: it may be put aside meanwhile.
        """
        before, is_there = self._number, self._open(self._file)
        for number, path in _asides(self._file).items():
            if before < number < self._number and self._open(path):
                break
        if is_there:
            if self._number > before + 1 and not self._is_told:
                yield Gap("dropped", 0)
            yield from self._read()

    def _open(self, path: Path) -> bool:
        """Open a file instead of the one that is open; return whether it is there."""
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return False
        self.close()
        self._stream, self._half = stream, b""
        status, found = os.fstat(stream.fileno()), _asides(self._file)
        named = (number for number, each in found.items() if _is_at(each, status))
        self._number = next(named, max(found, default=0) + 1)
        return True

    def _is_put_aside(self) -> bool:
        """Whether there is a file after the one that is open. None is, between being put aside and begun anew."""
        if self._stream is None:
            return self._file.exists()
        return self._file.exists() and not _is_at(self._file, os.fstat(self._stream.fileno()))

    def _read(self) -> Iterator[ExchangeRecord | Gap]:
        """Yield the whole lines that are not read yet. Half a last one is being written."""
        for line in self._stream or ():
            self._half += line
            if self._half.endswith(b"\n"):
                whole, self._half = self._half, b""
                if (entry := entry_of(whole)) is not None:
                    self._is_told = isinstance(entry, Gap)
                    yield entry


def _asides(file: Path) -> dict[int, Path]:
    """Return the files that were put aside, none where the folder was removed meanwhile."""
    try:
        return put_aside_files(file)
    except FileNotFoundError:
        return {}


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False
