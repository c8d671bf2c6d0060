"""`moat status`: what runs, since when, on which grants, and how these are. Starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from moat.api.runs import RunInfo
from moat.cli.output import show, show_json, show_table
from moat.cli.proxy import grant_line
from moat.daemon import lifecycle
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import GrantState, Health
from moat.paths import find_home

RUN_TITLES = ("NAME", "ID", "STATE", "SINCE", "GRANTS", "REQUESTS", "DENIED")
GRANT_TITLES = ("GRANT", "PROFILE", "EXPIRES", "STATE")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(as_json: bool) -> None:
    """Show what runs, on which grants, and how long those last."""
    home = find_home()
    health = lifecycle.status(home)
    runs = DaemonClient(home).runs() if health is not None else []
    if as_json:
        show_json({"daemon": None if health is None else asdict(health), "runs": [asdict(info) for info in runs]})
    elif health is None:
        show("nothing runs, and neither does the daemon")
    else:
        _show(health, runs)


def _show(health: Health, runs: Sequence[RunInfo]) -> None:
    show(f"the daemon runs since {_time(health.started_at)} (version {health.version})")
    if not runs:
        show("nothing runs")
        return
    show()
    show_table(RUN_TITLES, [_run_row(info) for info in runs])
    if health.grants:
        show()
        show_table(GRANT_TITLES, [_grant_row(state) for state in health.grants])


def _run_row(info: RunInfo) -> tuple[str, ...]:
    grants = ", ".join(info.grants) or "-"
    since = _time(info.started_at)
    return (info.name, info.run_id, info.state, since, grants, str(info.requests), str(info.denied))


def _grant_row(state: GrantState) -> tuple[str, ...]:
    expires = _time(state.expires_at) if state.expires_at else "never"
    told = grant_line(GrantState(state.profile, state.grant, state.state, next_at=state.next_at, problem=state.problem))
    return (state.grant, state.profile or "default", expires, told)


def _time(moment: str) -> str:
    return moment[:19].replace("T", " ")
