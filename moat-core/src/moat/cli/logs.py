"""`moat proxy logs`: the daemon's log, for people or as it is. Reads files; needs no daemon."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from moat.cli.output import show
from moat.log import KEPT_FILES
from moat.paths import find_home

POLL_S = 0.2
LINES = 50
_TOLD = ("at", "level", "logger", "message", "traceback")


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=LINES, show_default=True, help="How many lines.")
@click.option("--json", "as_json", is_flag=True, help="As it is: one JSON object a line.")
def logs(follow: bool, lines: int, as_json: bool) -> None:
    """Show the end of the log of the daemon and its worker."""
    file = find_home().daemon / "daemon.log"
    with contextlib.closing(Tail(file)) as tail:
        for line in last_lines(file, lines):
            show(line if as_json else rendered(line))
        for line in tail.follow() if follow else ():
            show(line if as_json else rendered(line))


def last_lines(file: Path, count: int) -> list[str]:
    """Return the last lines of a log, from the files before it too where it is shorter."""
    found: deque[str] = deque(maxlen=count)
    for number in range(KEPT_FILES, -1, -1):
        path = file.with_name(f"{file.name}.{number}") if number else file
        try:
            with path.open(encoding="utf-8", errors="replace") as stream:
                found.extend(line.rstrip("\n") for line in stream)
        except FileNotFoundError:
            continue
    return list(found)


def rendered(line: str) -> str:
    """Return a line of the log for people; what is no JSON is shown as it is."""
    try:
        entry = json.loads(line)
        head = f"{entry['at'][:19].replace('T', ' ')} {entry['level']:<7} {entry['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    facts = " ".join(f"{key}={_short(value)}" for key, value in entry.items() if key not in _TOLD)
    trace = f"\n{entry['traceback']}" if entry.get("traceback") else ""
    return f"{head}  {facts}".rstrip() + trace


class Tail:
    """What is added to a file from now on, also after it was put aside and begun anew. from_start: what it has, too."""

    def __init__(self, file: Path, *, from_start: bool = False) -> None:
        self._file = file
        self._stream = self._opened()
        if self._stream is not None and not from_start:
            self._stream.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()

    def follow(self) -> Iterator[str]:
        """Yield whole lines as they come; never ends."""
        while True:
            yield from self.added()
            time.sleep(POLL_S)

    def added(self) -> Iterator[str]:
        """Yield the whole lines that have come since."""
        if self._stream is not None:
            yield from self._whole_lines(self._stream)
        if self._is_replaced():
            self.close()
            self._stream = self._opened()
            if self._stream is not None:
                yield from self._whole_lines(self._stream)

    def _whole_lines(self, stream: IO[str]) -> Iterator[str]:
        while True:
            at = stream.tell()
            line = stream.readline()
            if not line.endswith("\n"):
                stream.seek(at)
                return
            yield line.rstrip("\n")

    def _is_replaced(self) -> bool:
        try:
            there = self._file.stat()
        except FileNotFoundError:
            return False
        return self._stream is None or not os.path.samestat(os.fstat(self._stream.fileno()), there)

    def _opened(self) -> IO[str] | None:
        try:
            return self._file.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if " " in text or not text else text
