"""`moat logs`: what a run's command printed. Reads what was kept; needs no daemon.

Output goes where the command sent it, byte for byte: standard output or standard error.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import click

from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.cli.known import complete_runs
from moat.cli.logs import POLL_S, Tail
from moat.cli.output import say, written
from moat.cli.reach import is_abandoned
from moat.paths import Home, find_home
from moat.runs.journal import FILE_NAME, Printed, put_aside, read_entries
from moat.runs.service_logs import FOLDER, kept_services
from moat.trace.store import LIVE_STATES, RunStore

_ASK_EVERY = 5  # looks at the file between two questions whether anybody holds the run
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


@click.command("logs")
@click.argument("name", default="", metavar="[RUN]", shell_complete=complete_runs)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="The last N lines only.")
@click.option("--service", default="", metavar="S", help="What this service of the run printed, instead.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("--json", "in_json", is_flag=True, help="As kept: one JSON object for each piece of output.")
def logs(name: str, follow: bool, lines: int | None, service: str, timestamps: bool, in_json: bool) -> None:
    """Show what a run printed that has a terminal or was started with -d, or what a service of any run did.

    Without RUN: the newest.
    """
    home, store = find_home(), RunStore(find_home())
    info = store.find(name) if name else store.newest()
    file = (of_service(home, info, service) if service else home.run(info.run_id)) / FILE_NAME
    writer = Writer(with_times=timestamps, in_json=in_json)
    with contextlib.closing(Tail(file, from_start=True)) as tail:
        kept = chain(put_aside(file.parent), read_entries(tail.added()))
        for entry in kept if lines is None else last(kept, lines):
            writer.write(entry)
        for entry in followed(home, info, tail) if follow else ():
            writer.write(entry)
    if not file.exists() and not service:
        problem = f"nothing is kept of what {info.name} printed: it printed right to where it was started"
        raise UsageError(problem, hint="to have it kept, start a run with -d, or in a terminal")


def of_service(home: Home, info: RunInfo, service: str) -> Path:
    """Return the folder of what a service printed. Raises UsageError, naming those there are, when there is none."""
    folder = home.run(info.run_id)
    if service not in (known := kept_services(folder)):
        there = f"there are: {', '.join(known)}" if known else "nothing is kept of any service"
        problem = f"{info.name} has no service {service!r} that printed something; {there}"
        hint = f"run: moat logs {info.name} --service {known[0]}" if known else "services: --service, or moat.yaml"
        raise UsageError(problem, hint=hint)
    return folder / FOLDER / service


def followed(home: Home, info: RunInfo, tail: Tail) -> Iterator[Printed]:
    """Yield what is printed from now on, until the run is over, or nobody is left who could write that down."""
    for look in count(1):
        is_over = RunStore(home).read(info.run_id).state not in LIVE_STATES
        is_over = is_over or (look % _ASK_EVERY == 0 and is_abandoned(home, info))
        yield from read_entries(tail.added())
        if is_over:
            return
        time.sleep(POLL_S)


def last(entries: Iterable[Printed], lines: int) -> list[Printed]:
    """Return the last lines of what was printed."""
    kept: deque[Printed] = deque()
    ends = 0
    for piece in chain.from_iterable(_by_line(entry) for entry in entries):
        kept.append(piece)
        ends += _is_whole(piece)
        while kept and ends + (not _is_whole(piece)) > lines:
            ends -= _is_whole(kept.popleft())
    return list(kept)


class Writer:
    """Writes entries to where the run wrote them. with_times: at the beginning of each line, of each stream."""

    def __init__(self, *, with_times: bool, in_json: bool) -> None:
        self._with_times = with_times
        self._in_json = in_json
        self._in_line: set[str] = set()

    def write(self, entry: Printed) -> None:
        """Write one entry at once."""
        if self._in_json:
            return _write("stdout", entry.as_json().encode() + b"\n")
        if entry.lost:
            return say(f"moat: {entry.lost} bytes are missing here: the disk did not take them")
        if self._with_times:
            for piece in _by_line(entry):
                head = b"" if entry.stream in self._in_line else f"{entry.at} ".encode()
                _write(entry.stream, head + piece.data)
                (self._in_line.discard if _is_whole(piece) else self._in_line.add)(entry.stream)
            return None
        return _write(entry.stream, entry.data)


def _by_line(entry: Printed) -> list[Printed]:
    return [replace(entry, text=text) for text in _LINES.findall(entry.text)] or [entry]


def _is_whole(piece: Printed) -> bool:
    return piece.text.endswith("\n")


def _write(stream: str, data: bytes) -> None:
    with written("stderr" if stream == "stderr" else "stdout") as out:
        out.buffer.write(data)
