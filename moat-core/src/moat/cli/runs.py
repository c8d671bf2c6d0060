"""`moat list`: the runs of this installation, newest first. Reads what the daemon wrote; starts nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

import click

from moat.api.errors import DaemonError
from moat.api.runs import RunInfo
from moat.cli.output import show, show_json, show_table
from moat.daemon.client import DaemonClient
from moat.paths import Home, find_home
from moat.trace.store import RunStore

TITLES = ("NAME", "ID", "STATE", "RUNTIME", "REQUESTS", "DENIED", "STARTED", "COMMAND")
_COMMAND_CHARS = 40


@click.command("list")
@click.option("--json", "in_json", is_flag=True, help="As JSON, with every field.")
def list_runs(in_json: bool) -> None:
    """List the runs, newest first."""
    home = find_home()
    found = RunStore(home).list(live_ids(home))
    if in_json:
        show_json([asdict(info) for info in found])
    elif found:
        show_table(TITLES, as_rows(found))
    else:
        show("no runs yet; start one: moat run -- COMMAND")


def live_ids(home: Home) -> set[str]:
    """Return the ids of the runs that the daemon holds now; none when no daemon runs."""
    try:
        return {info.run_id for info in DaemonClient(home).runs()}
    except DaemonError:
        return set()


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
