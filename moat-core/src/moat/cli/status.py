"""`moat status`: what runs, since when, on which grants, how these are, and the room it takes. Starts nothing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import click

from moat.api.runs import RunInfo
from moat.cli.clean import shown_size
from moat.cli.output import show, show_json, show_table
from moat.cli.ports import Address, addresses_of, ports_as_json
from moat.cli.proxy import grant_line
from moat.daemon import lifecycle
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import GrantState, Health
from moat.paths import Home, find_home
from moat.runs.remains import size_of

RUN_TITLES = ("NAME", "ID", "STATE", "SINCE", "GRANTS", "REQUESTS", "DENIED", "DISK")
PORT_TITLES = ("RUN", "PORT", "INSIDE", "ADDRESS", "PUBLISHED")
GRANT_TITLES = ("GRANT", "PROFILE", "EXPIRES", "STATE")


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes. runs_bytes: of the live runs' folders, by id: their traces and what they printed."""

    used_bytes: int
    free_bytes: int
    runs_bytes: dict[str, int] = field(default_factory=dict)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(as_json: bool) -> None:
    """Show what runs, on which grants, and how long those last."""
    home = find_home()
    health = lifecycle.status(home)
    runs = DaemonClient(home).runs() if health is not None else []
    disk = disk_use(home, runs)
    ports = [] if health is None else addresses_of(home, {info.run_id for info in runs}, health.routing_port)
    if as_json:
        told = None if health is None else asdict(health)
        shown = [{**asdict(info), "ports": ports_as_json(ports, info.run_id)} for info in runs]
        show_json({"daemon": told, "runs": shown, "disk": asdict(disk)})
    elif health is None:
        show("nothing runs, and neither does the daemon")
        _show_disk(home, disk)
    else:
        _show(health, runs, ports, disk)
        _show_disk(home, disk)


def disk_use(home: Home, runs: Sequence[RunInfo]) -> DiskUse:
    """Return what is taken, and what is left where it is taken."""
    place = next(each for each in (home.root, *home.root.parents) if each.exists())
    by_run = {info.run_id: size_of(home.run(info.run_id)) for info in runs}
    return DiskUse(size_of(home.root), shutil.disk_usage(place).free, by_run)


def _show_disk(home: Home, disk: DiskUse) -> None:
    show(f"{shown_size(disk.used_bytes)} used in {home.root}, {shown_size(disk.free_bytes)} free")


def _show(health: Health, runs: Sequence[RunInfo], ports: Sequence[Address], disk: DiskUse) -> None:
    show(f"the daemon runs since {_time(health.started_at)} (version {health.version})")
    if not runs:
        show("nothing runs")
        return
    show()
    show_table(RUN_TITLES, [_run_row(info, disk) for info in runs])
    if ports:
        show()
        rows = [(each.agent, each.name, str(each.port), each.url, each.loopback or "-") for each in ports]
        show_table(PORT_TITLES, rows)
    if health.grants:
        show()
        show_table(GRANT_TITLES, [_grant_row(state) for state in health.grants])
    show()


def _run_row(info: RunInfo, disk: DiskUse) -> tuple[str, ...]:
    grants = ", ".join(info.grants) or "-"
    since = _time(info.started_at)
    counts = (str(info.requests), str(info.denied), shown_size(disk.runs_bytes[info.run_id]))
    return (info.name, info.run_id, info.state, since, grants, *counts)


def _grant_row(state: GrantState) -> tuple[str, ...]:
    expires = _time(state.expires_at) if state.expires_at else "never"
    told = grant_line(GrantState(state.profile, state.grant, state.state, next_at=state.next_at, problem=state.problem))
    return (state.grant, state.profile or "default", expires, told)


def _time(moment: str) -> str:
    return moment[:19].replace("T", " ")
