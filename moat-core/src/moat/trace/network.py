"""A run's exchanges, one JSON object a line (docs/trace.md). One writer, the daemon; who may read the folder reads.

    worker ──▶ daemon: append ──▶ at most a second in memory ──▶ network.jsonl ─ too long ─▶ network.1.jsonl, .2, …
                                   └ the disk says no: kept, bounded; then counted, and a Gap says how many are missing

Lines stand in the order in which the exchanges ended. What is written holds no query value and no secret.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass as mutable
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from moat.api.light import dataclass
from moat.api.runs import ExchangeRecord
from moat.paths import UNWRITABLE, private_folder, write_private
from moat.trace.values import decode, parsed

FLUSH_EVERY_S = 1.0  # what a crash of the daemon may lose
LIMIT_BYTES = 16 * 1024 * 1024  # of one file: some 25,000 exchanges
KEPT_FILES = 3  # the first, and the latest before the one that is written: a run in a loop must not fill the disk
_GAP_NUMBER = 2  # of the file that counts those that were dropped
_BUFFERED_BYTES = 131_072  # written at once, whatever the clock says: some 200 exchanges
_WAITING_BYTES = 1_048_576  # of one run, while the disk takes nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gap:
    """Exchanges that are missing here. marker: "lost", the disk took nothing; "dropped", the trace was too long."""

    marker: Literal["lost", "dropped"]
    exchanges: int
    at: str = ""
    version: int = 1


@mutable(slots=True)
class _Pending:
    """What waits to be written of one run: as it came, since each copy of it costs as much as writing it."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def whole(self) -> bytes:
        return b"".join(self.parts)


class NetworkLog:
    """The writing end for all live runs. Call flush at least every FLUSH_EVERY_S, and close at a run's end.

    lost: how many exchanges the disk did not take, of all runs. limit_bytes: of one file.
    """

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._pending: dict[Path, _Pending] = {}
        self._missing: dict[Path, int] = {}
        self._failing: set[Path] = set()
        self.lost = 0

    def append(self, file: Path, lines: bytes) -> None:
        """Remember exchanges, each a line with its end, to be written within a second."""
        pending = self._pending.setdefault(file, _Pending())
        pending.parts.append(lines)
        pending.size += len(lines)
        if pending.size >= (_WAITING_BYTES if file in self._failing else _BUFFERED_BYTES):
            self._write(file)

    def flush(self) -> None:
        """Write everything remembered. A failing disk is logged, once, and asked again: a run goes on."""
        for file in tuple(self._pending):
            self._write(file)

    def close(self, file: Path) -> None:
        """Write what is left of one run, as durably as the disk can, and forget it."""
        self._write(file)
        if left := self._pending.pop(file, None):
            self._give_up(file, left.whole())
        if missing := self._missing.pop(file, 0):
            log.warning("exchanges are missing from a trace", extra={"path": str(file), "count": missing})
        self._failing.discard(file)
        with suppress(OSError):
            _sync(file)

    def _write(self, file: Path) -> None:
        pending = self._pending.pop(file, None)
        if pending is None:
            return
        missing = self._missing.get(file, 0)
        lines = pending.whole()
        data = _line_of(Gap("lost", missing)) + lines if missing else lines
        try:
            rest = data[_append(data, file, self._limit) :]
            problem = "the disk is full" if rest else ""
        except UNWRITABLE as failure:
            rest, problem = data, str(failure)
        if len(rest) < len(data):
            self._missing.pop(file, None)  # the gap was told
        elif missing:
            rest = lines
        if not problem:
            self._failing.discard(file)
            return
        self._keep(file, rest, problem)

    def _keep(self, file: Path, rest: bytes, problem: str) -> None:
        """Keep what could not be written for the next time, as long as it is not too much."""
        if file not in self._failing:
            log.warning("exchanges could not be written", extra={"path": str(file), "problem": problem})
            self._failing.add(file)
        if len(rest) >= _WAITING_BYTES:
            self._give_up(file, rest)
        else:
            self._pending[file] = _Pending([rest], len(rest))

    def _give_up(self, file: Path, lines: bytes) -> None:
        count = lines.count(b"\n")
        self._missing[file] = self._missing.get(file, 0) + count
        self.lost += count


def read_exchanges(file: Path) -> Iterator[ExchangeRecord]:
    """Yield the exchanges of a run, oldest first; see read_trace."""
    return (each for each in read_trace(file) if isinstance(each, ExchangeRecord))


def read_trace(file: Path) -> Iterator[ExchangeRecord | Gap]:
    """Yield what a run's trace says, oldest first. file: the latest of its files.

    Lines that are none are skipped: half a last line is being written, or was when the daemon was killed.
    """
    with ExitStack() as stack:
        for stream in [stack.enter_context(each) for each in _opened(file)]:
            for line in stream:
                if (entry := entry_of(line)) is not None:
                    yield entry


def entry_of(line: bytes) -> ExchangeRecord | Gap | None:
    """Return what a line of a trace says, None for one that is none."""
    try:
        wire = parsed(line)
        if isinstance(wire, dict) and "marker" in wire:
            return decode(Gap, wire)
        return decode(ExchangeRecord, wire)
    except ValueError:
        return None


def put_aside_files(file: Path) -> dict[int, Path]:
    """Return the files that were put aside, by number, the oldest first."""
    name = re.compile(re.escape(file.stem) + r"\.([0-9]{1,9})" + re.escape(file.suffix))
    found = {int(match[1]): each for each in file.parent.iterdir() if (match := name.fullmatch(each.name))}
    return dict(sorted(found.items()))


def _opened(file: Path) -> list[BinaryIO]:
    """Return the files of a trace, the oldest first. The latest is opened first: it may be put aside meanwhile."""
    found: dict[int, BinaryIO] = {}
    with suppress(FileNotFoundError):
        _open_once(file, found)
        for each in reversed(put_aside_files(file).values()):
            with suppress(FileNotFoundError):
                _open_once(each, found)
    return list(reversed(found.values()))


def _open_once(path: Path, found: dict[int, BinaryIO]) -> None:
    stream = path.open("rb")
    inode = os.fstat(stream.fileno()).st_ino
    if found.setdefault(inode, stream) is not stream:
        stream.close()


def _append(data: bytes, file: Path, limit_bytes: int) -> int:
    """Append lines and return how many bytes of them, whole lines, the disk took. Raises UNWRITABLE.

    Half a line left by a crash is closed first; a file that would be too long is put aside.
    """
    private_folder(file.parent)
    descriptor = _open(file)
    try:
        size = os.fstat(descriptor).st_size
        if size and size + len(data) > limit_bytes:
            os.close(descriptor)
            descriptor, size = -1, 0
            _put_aside(file)
            descriptor = _open(file)
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            size += os.write(descriptor, b"\n")
        return _written(descriptor, data, size)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _written(descriptor: int, data: bytes, size: int) -> int:
    """Write data at the end, at size, and return how much of it stands there in whole lines."""
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += os.write(descriptor, view[done:])
    except OSError:
        whole = data[:done].rfind(b"\n") + 1
        if not whole:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
        with suppress(OSError):  # where it cannot be cut, half a line is closed the next time
            os.ftruncate(descriptor, size + whole)
        return whole
    return done


def _put_aside(file: Path) -> None:
    """Rename a file that is full. Beyond what is kept the second oldest goes, and a count stands in its place.

    So a flood can wash away neither how a run began nor what it did last.
    """
    asides = put_aside_files(file)
    number = max(asides, default=0) + 1
    file.replace(asides.setdefault(number, file.with_name(f"{file.stem}.{number}{file.suffix}")))
    missing = _missing(asides[_GAP_NUMBER]) if _GAP_NUMBER in asides else 0
    later = [number for number in asides if number > (_GAP_NUMBER if missing else 1)]
    if len(later) < KEPT_FILES:
        return
    victim = asides[later[0]]
    with victim.open("rb") as stream:
        missing += sum(piece.count(b"\n") for piece in iter(lambda: stream.read(1_048_576), b""))
    write_private(asides[_GAP_NUMBER], _line_of(Gap("dropped", missing)))
    if later[0] != _GAP_NUMBER:
        victim.unlink()


def _missing(file: Path) -> int:
    """Return how many exchanges a file says are missing, when it says nothing else."""
    with file.open("rb") as stream:
        entry = entry_of(stream.readline())
    return entry.exchanges if isinstance(entry, Gap) and entry.marker == "dropped" else 0


def _line_of(gap: Gap) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    wire = {"version": 1, "marker": gap.marker, "exchanges": gap.exchanges, "at": at}
    return json.dumps(wire, separators=(",", ":")).encode() + b"\n"


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
