"""A run's exchanges, one JSON object a line. One writer, the daemon; anybody who may read the folder reads.

    worker ──▶ daemon: append ──▶ at most a second in memory ──▶ network.jsonl

What is written holds no header, no body and no query value: `ExchangeRecord` has no place for them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from moat.api.runs import ExchangeRecord
from moat.paths import UNWRITABLE, private_folder
from moat.trace.values import decode, parsed

FLUSH_EVERY_S = 1.0  # what a crash of the daemon may lose
LIMIT_BYTES = 64 * 1024 * 1024  # some 200,000 exchanges: a run in a loop must not fill the disk
_BUFFERED_BYTES = 262_144  # written at once, whatever the clock says: some 800 exchanges

log = logging.getLogger(__name__)


class NetworkLog:
    """The writing end for all live runs. Call flush at least every FLUSH_EVERY_S, and close at a run's end."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._pending: dict[Path, bytearray] = {}
        self._full: set[Path] = set()

    def append(self, file: Path, lines: bytes) -> None:
        """Remember exchanges, each a line with its end, to be written within a second."""
        if file in self._full:
            return
        pending = self._pending.setdefault(file, bytearray())
        pending += lines
        if len(pending) >= _BUFFERED_BYTES:
            self._write(file)

    def flush(self) -> None:
        """Write everything remembered. A failing disk is logged, and the exchanges are lost: a run goes on."""
        for file in tuple(self._pending):
            self._write(file)

    def close(self, file: Path) -> None:
        """Write what is left of one run and forget it."""
        self._write(file)
        self._full.discard(file)

    def _write(self, file: Path) -> None:
        lines = self._pending.pop(file, b"")
        if not lines:
            return
        try:
            is_full = _append(bytes(lines), file, self._limit)
        except UNWRITABLE as failure:
            log.warning("exchanges could not be written", extra={"path": str(file), "problem": str(failure)})
            return
        if is_full:
            self._full.add(file)
            log.warning("a run's trace is full and goes no further", extra={"path": str(file)})


def read_exchanges(file: Path) -> Iterator[ExchangeRecord]:
    """Yield the exchanges of a run, oldest first.

    Lines that are none are skipped: half a last line is being written, or was when the daemon was killed.
    """
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for line in stream:
            try:
                yield decode(ExchangeRecord, parsed(line))
            except ValueError:
                continue


def _append(data: bytes, file: Path, limit_bytes: int) -> bool:
    """Append data and return whether the file has reached its limit; half a line left by a crash is closed first."""
    private_folder(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        stream.write(data)
        return size + len(data) >= limit_bytes
