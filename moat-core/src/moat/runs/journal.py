"""What a run's command printed, kept: `runs/<id>/console.jsonl`, one JSON object a line, its streams told apart.

    {"at": "2026-01-01T12:00:00.000+00:00", "stream": "stdout" | "stderr" | "terminal", "text": "…"}
    {"at": …, "stream": "lost", "bytes": 4096}       a full disk, say: the run goes on, and what is missing is counted

Secrets that the run was given, and those of which the daemon gave marks, are taken out before anything is written
(`blotting.py`). Bytes that are no UTF-8 stand as lone surrogates (PEP 383), so that `text` gives back exactly what was
printed. The file is put aside as `console.jsonl.1` when it is long, and the one before is dropped.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from moat.api.light import dataclass
from moat.redaction import SecretMarks
from moat.runs.blotting import Blotter

Stream = Literal["stdout", "stderr", "terminal"]

FILE_NAME = "console.jsonl"
LIMIT_BYTES = 32 * 1024 * 1024  # two of them are kept at most


class Journal:
    """Writes one run's output. Nothing that it meets on the disk is the run's concern: nothing is raised.

    secrets: what is never written. known: marks of what is not either.
    """

    def __init__(
        self,
        folder: Path,
        *,
        secrets: Iterable[str] = (),
        known: SecretMarks | None = None,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._path = folder / FILE_NAME
        self._limit = limit_bytes
        self._file = -1
        self._size = 0
        self._lost = 0
        self._secrets = tuple(secrets)
        self._known = known
        self._blotters: dict[Stream, Blotter] = {}
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {}

    def begin(self) -> None:
        """Make the file, so that it is known that nothing has been printed yet."""
        with contextlib.suppress(OSError):
            self._make_room()

    def write(self, stream: Stream, data: bytes) -> None:
        """Add what was printed. A character that is cut in two waits for its other half."""
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            self._blotters[stream] = Blotter(self._secrets, self._known)
        if text := self._decoders[stream].decode(self._blotters[stream].feed(data)):
            self._add({"at": _now(), "stream": stream, "text": text}, len(data))

    def close(self) -> None:
        """Write what is left and let go of the file."""
        for stream, decoder in self._decoders.items():
            if rest := decoder.decode(self._blotters[stream].finish(), final=True):
                self._add({"at": _now(), "stream": stream, "text": rest}, len(rest))
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, entry: dict[str, object], size: int) -> None:
        try:
            self._make_room()
            if self._lost:
                self._put({"at": _now(), "stream": "lost", "bytes": self._lost})
                self._lost = 0
            self._put(entry)
        except OSError:
            self._lost += size

    def _put(self, entry: dict[str, object]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full now: half a line would spoil the next one
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError("the line did not fit")
        self._size += written

    def _make_room(self) -> None:
        if self._file >= 0 and self._size >= self._limit:
            os.close(self._file)
            self._file = -1
            self._path.replace(self._path.with_name(f"{FILE_NAME}.1"))
        if self._file < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._file).st_size


@dataclass(frozen=True, slots=True)
class Printed:
    """One entry of a journal. lost: how many bytes are missing at this place, else 0."""

    at: str
    stream: str
    text: str = ""
    lost: int = 0

    @property
    def data(self) -> bytes:
        """The bytes as they were printed."""
        return self.text.encode("utf-8", "surrogateescape")

    def as_json(self) -> str:
        """Return the entry as its line has it."""
        rest: dict[str, object] = {"bytes": self.lost} if self.lost else {"text": self.text}
        return json.dumps({"at": self.at, "stream": self.stream, **rest}, separators=(",", ":"))


def read_entries(lines: Iterable[str]) -> Iterator[Printed]:
    """Yield the entries of a journal's lines; what is none is left out (a crash may leave half a line)."""
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            entry = json.loads(line)
            yield Printed(entry["at"], entry["stream"], entry.get("text", ""), int(entry.get("bytes", 0)))


def put_aside(folder: Path) -> Iterator[Printed]:
    """Yield the entries that stand in the file before the newest, where there is one."""
    with contextlib.suppress(FileNotFoundError), (folder / f"{FILE_NAME}.1").open(encoding="utf-8") as lines:
        yield from read_entries(lines)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
