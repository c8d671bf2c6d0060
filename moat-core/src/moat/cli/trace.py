"""`moat trace`: what a run asked the network for, and what became of it. Reads only; starts nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from moat import __version__
from moat.api.errors import DaemonError, MoatError, UsageError
from moat.api.runs import ExchangeRecord, RunInfo
from moat.cli.known import complete_runs
from moat.cli.logs import POLL_S
from moat.cli.output import say, show, show_json, show_table, styled
from moat.cli.runs import live_ids
from moat.cli.trace_table import HOST_TITLES, MODEL_TITLES, TITLES, as_rows, fitted, host_rows, model_rows
from moat.daemon.client import DaemonClient
from moat.paths import Home, find_home
from moat.trace.following import Following
from moat.trace.har import har
from moat.trace.network import Gap, read_trace
from moat.trace.selection import Selection, hosts_of, ranges
from moat.trace.store import LIVE_STATES, RunStore
from moat.trace.summary import summary

PATIENCE_S = 40.0  # a gate looks 30 s for a daemon to take its run over (docs/daemon.md)
_ASK_EVERY = 5  # looks at the file between two questions whether the run still lives


@click.command("trace")
@click.argument("run", default="", shell_complete=complete_runs)
@click.option("--network", is_flag=True, help="The run's requests (the only trace so far, and the default).")
@click.option("-f", "--follow", is_flag=True, help="Go on showing them as they end, as long as the run lives.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="Only this host; * stands for anything.")
@click.option("--status", "statuses", multiple=True, metavar="STATUS", help="Only these: 404, 4xx or 400-499.")
@click.option("--denied", is_flag=True, help="Only what the policy kept in.")
@click.option("--slow", is_flag=True, help="Only what took a second or longer, the slowest first.")
@click.option("--summary", "sums_up", is_flag=True, help="Totals per host, and per language model.")
@click.option("--har", "archive", metavar="FILE", help="Write an HTTP archive for a browser's developer tools.")
@click.option("--json", "in_json", is_flag=True, help="One JSON array, with every field; with -f one object a line.")
def trace(
    run: str,
    network: bool,
    follow: bool,
    hosts: tuple[str, ...],
    statuses: tuple[str, ...],
    denied: bool,
    slow: bool,
    sums_up: bool,
    archive: str | None,
    in_json: bool,
) -> None:
    """Show the requests of RUN: an id, the beginning of one, or a name. Without RUN: the newest."""
    del network  # there is nothing else to choose yet
    if follow and (sums_up or archive):
        raise UsageError("-f shows exchanges as they end, and makes no totals and no archive of them")
    selection = Selection(hosts_of(hosts), ranges(statuses), denied, slow)
    home = find_home()
    info = chosen_run(home, run)
    file = RunStore(home).network(info.run_id)
    if follow:
        return _follow(home, info, file, selection, in_json=in_json)
    exchanges, missing = _read(file, selection)
    if archive:
        _write_archive(archive, info, exchanges)
    elif sums_up:
        _sum_up(info, exchanges, missing, in_json=in_json)
    elif in_json:
        show_json([asdict(exchange) for exchange in exchanges])
    else:
        _show(info, exchanges, missing, is_narrow=selection.is_narrow)
    return None


def chosen_run(home: Home, reference: str) -> RunInfo:
    """Return the run that reference means, the newest one for none. Raises RunNotFound."""
    store, live = RunStore(home), live_ids(home)
    return store.find(reference, live) if reference else store.newest(live)


def _read(file: Path, selection: Selection) -> tuple[list[ExchangeRecord], int]:
    """Return the exchanges that are wanted, and how many are missing of all."""
    exchanges, missing = [], 0
    for entry in read_trace(file):
        if isinstance(entry, Gap):
            missing += entry.exchanges
        elif selection.takes(entry):
            exchanges.append(entry)
    if selection.slow:
        exchanges.sort(key=lambda each: -each.duration_ms)
    return exchanges, missing


def _show(info: RunInfo, exchanges: list[ExchangeRecord], missing: int, *, is_narrow: bool) -> None:
    show(f"{info.name} ({info.run_id}, {info.state})")
    if not exchanges:
        show("no such requests" if is_narrow else "no requests")
    elif sys.stdout.isatty():
        _show_fitted(exchanges)
    else:
        show_table(TITLES, as_rows(exchanges))
    if missing:
        say(f"{missing} exchanges are missing: the disk was full, or the trace too long")


def _show_fitted(exchanges: list[ExchangeRecord], *, has_waterfall: bool = True, has_titles: bool = True) -> None:
    width = shutil.get_terminal_size().columns
    for number, line in enumerate(fitted(exchanges, width, has_waterfall=has_waterfall)):
        if number or has_titles:
            show(styled(line.text, line.style, sys.stdout) if line.style else line.text)
        for note in line.notes:
            show(styled(note, "dim", sys.stdout))


def _sum_up(info: RunInfo, exchanges: list[ExchangeRecord], missing: int, *, in_json: bool) -> None:
    totals = summary(exchanges, missing)
    if in_json:
        return show_json(asdict(totals))
    show(f"{info.name} ({info.run_id}, {info.state})")
    show_table(HOST_TITLES, host_rows(totals))
    if totals.models:
        show()
        show_table(MODEL_TITLES, model_rows(totals.models))
    if missing:
        say(f"{missing} exchanges are missing: the disk was full, or the trace too long")
    return None


def _write_archive(name: str, info: RunInfo, exchanges: Iterable[ExchangeRecord]) -> None:
    text = json.dumps(har(info, exchanges, __version__), indent=1)
    if name == "-":
        return show_json(json.loads(text))
    try:
        Path(name).write_text(f"{text}\n", encoding="utf-8")
    except OSError as failure:
        raise MoatError(f"{name} cannot be written: {failure.strerror}", hint="name another file") from failure
    say(f"{name}: open it in a browser's developer tools, tab Network")
    return None


def _follow(home: Home, info: RunInfo, file: Path, selection: Selection, *, in_json: bool) -> None:
    """Show what is there and what comes, until the run is over."""
    has_titles = True
    for exchange in _shown(selection, _coming(home, info.run_id, file)):
        if in_json:
            show(json.dumps(asdict(exchange)))
        elif sys.stdout.isatty():
            _show_fitted([exchange], has_waterfall=False, has_titles=has_titles)
        else:
            show("  ".join(as_rows([exchange])[0]).rstrip())
        has_titles = False


def _shown(selection: Selection, entries: Iterable[ExchangeRecord | Gap]) -> Iterator[ExchangeRecord]:
    """Yield the exchanges that are wanted, and say where some are missing."""
    for entry in entries:
        if isinstance(entry, Gap):
            count = entry.exchanges or "some"
            say(f"moat: {count} exchanges are missing here: the disk was full, or the trace too long")
        elif selection.takes(entry):
            yield entry


def _coming(home: Home, run_id: str, file: Path) -> Iterator[ExchangeRecord | Gap]:
    """Yield exchanges as they are written, until the run is over. What was put aside before is not shown again."""
    life = _Life(home, run_id)
    with contextlib.closing(Following(file)) as following:
        is_live = True
        while is_live:
            is_live = life.goes_on()  # asked first: what was written before it ended is read below
            for _ in range(_ASK_EVERY):
                yield from following.added()
                if is_live:
                    time.sleep(POLL_S)


class _Life:
    """Whether a run goes on, also while its daemon is replaced by the next one, which takes its runs over."""

    def __init__(self, home: Home, run_id: str) -> None:
        self._home = home
        self._run_id = run_id
        self._heard_at = -PATIENCE_S

    def goes_on(self) -> bool:
        """Ask the daemon; where there is none, what was written down, and for how long there was none."""
        try:
            held = {info.run_id for info in DaemonClient(self._home).runs()}
        except DaemonError:
            if RunStore(self._home).read(self._run_id).state not in LIVE_STATES:
                return False
            return time.monotonic() - self._heard_at < PATIENCE_S
        self._heard_at = time.monotonic()
        return self._run_id in held
