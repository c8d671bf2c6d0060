"""`moat list`: the runs of this installation, newest first. Reads what the daemon wrote; starts nothing.

Without -a: every live run, and the newest of those that are over. A program gets all.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

import click

from moat.api.errors import DaemonError
from moat.api.runs import RunInfo
from moat.cli.output import say, show, show_json, show_table
from moat.cli.ports import addresses_of, ports_as_json
from moat.daemon.client import DaemonClient
from moat.paths import Home, find_home
from moat.trace.store import LIVE_STATES, RunStore

TITLES = ("NAME", "ID", "STATE", "RUNTIME", "REQUESTS", "DENIED", "STARTED", "COMMAND")
SHOWN_ENDED = 15  # what fits a screen
_COMMAND_CHARS = 40


@click.command("list")
@click.option("-a", "--all", "shows_all", is_flag=True, help="Also those that ended long ago.")
@click.option("--json", "in_json", is_flag=True, help="All of them as JSON, with every field.")
def list_runs(shows_all: bool, in_json: bool) -> None:
    """List the runs, newest first."""
    home = find_home()
    found = RunStore(home).list(live_ids(home))
    if in_json:
        ports = addresses_of(home, {info.run_id for info in found if info.state in LIVE_STATES}, _routing_port(home))
        show_json([{**asdict(info), "ports": ports_as_json(ports, info.run_id)} for info in found])
    elif found:
        shown = found if shows_all else newest(found)
        show_table(TITLES, as_rows(shown))
        if hidden := len(found) - len(shown):
            say(f"{hidden} more ended before: moat list -a")
    else:
        show("no runs yet; start one: moat run -- COMMAND")


def newest(runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Return the live ones of runs, and the first SHOWN_ENDED of the others, in order."""
    ended = [info for info in runs if info.state not in LIVE_STATES][:SHOWN_ENDED]
    return [info for info in runs if info.state in LIVE_STATES or info in ended]


def live_ids(home: Home) -> set[str]:
    """Return the ids of the runs that the daemon holds now; none when no daemon runs."""
    try:
        return {info.run_id for info in DaemonClient(home).runs()}
    except DaemonError:
        return set()


def _routing_port(home: Home) -> int:
    try:
        return DaemonClient(home).health().routing_port
    except DaemonError:
        return 0


def as_rows(runs: Sequence[RunInfo]) -> list[tuple[str, ...]]:
    """Return runs as rows under TITLES."""
    return [
        (
            info.name,
            info.run_id,
            _state(info),
            info.runtime,
            str(info.requests),
            str(info.denied),
            info.started_at[:19].replace("T", " "),
            _shortened(shlex.join(info.command)),
        )
        for info in runs
    ]


def _state(info: RunInfo) -> str:
    return f"{info.state} ({info.exit_code})" if info.exit_code is not None else info.state


def _shortened(text: str) -> str:
    return text if len(text) <= _COMMAND_CHARS else f"{text[: _COMMAND_CHARS - 1]}…"
