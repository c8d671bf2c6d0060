"""`moat attach`, `moat stop`, `moat wait`: reach a live run from another command line."""

from __future__ import annotations

import asyncio
import signal

import click

from moat.api.errors import SandboxFailed, UsageError
from moat.api.runs import RunInfo
from moat.api.runtimes import Stdio
from moat.cli.known import complete_live_runs, complete_runs
from moat.cli.output import show, show_json
from moat.cli.perform import said_after, say_result, warn_of_changes
from moat.cli.runs import live_ids
from moat.daemon.lifecycle import ensure_running
from moat.paths import Home, find_home
from moat.runs.attach import fill_closed
from moat.runs.interrupt import GRACE_S
from moat.runs.reach import awaited, connected, send_signal
from moat.runs.viewer import Viewer
from moat.runs.watched import read_changes
from moat.trace.store import LIVE_STATES, RunStore

END_S = 30.0  # from the command's end until the run is over; a container may be slow to go


@click.command("attach")
@click.argument("name", metavar="RUN", shell_complete=complete_live_runs)
def attach(name: str) -> int:
    """Look at a run that has a terminal or was started with -d, and type into it.

    Ctrl-P Ctrl-Q leaves it running. The exit code is the command's, if it ends meanwhile.
    """
    fill_closed()
    home = find_home()
    info = live_run(home, name)
    sight = asyncio.run(Viewer(connected(home, info), Stdio(0, 1, 2)).follow())
    return said_after(home, info.run_id, sight.how == "left", sight.code)


@click.command("stop")
@click.argument("names", metavar="RUN...", shell_complete=complete_live_runs, nargs=-1, required=True)
@click.option(
    "-t", "--time", "grace_s", type=click.FloatRange(min=0), default=GRACE_S, show_default=True,
    metavar="S", help="Seconds that the command has to end by itself.",
)  # fmt: skip
def stop(names: tuple[str, ...], grace_s: float) -> None:
    """Stop runs: SIGTERM for the command, and SIGKILL if it takes too long. What it left running ends with it."""
    home = find_home()
    found = [live_run(home, name) for name in names]
    for info in found:
        asyncio.run(send_signal(connected(home, info), signal.SIGTERM, grace_s))
    for info in found:
        if asyncio.run(awaited(home, info, grace_s + END_S)).state in LIVE_STATES:
            raise SandboxFailed(f"{info.name} does not end", hint=f"run: moat stop -t 0 {info.name}")
        show(info.name)


@click.command("wait")
@click.argument("names", metavar="RUN...", shell_complete=complete_runs, nargs=-1, required=True)
@click.option("--json", "in_json", is_flag=True, help="As JSON, with each run's state and exit code.")
def wait(names: tuple[str, ...], in_json: bool) -> int:
    """Wait until runs have ended, and say how. The exit code is the last one's."""
    home = find_home()
    found = [RunStore(home).find(name, live_ids(home)) for name in names]
    ended = [asyncio.run(awaited(home, info)) for info in found]
    if in_json:
        shown = ("name", "run_id", "state", "exit_code")
        show_json([{key: getattr(info, key) for key in shown} for info in ended])
    else:
        for info in ended:
            show(f"{info.name} {info.state}{'' if info.exit_code is None else f' {info.exit_code}'}")
    for info in ended:
        say_result(home, info)
        warn_of_changes(read_changes(home, info.run_id))
    return 1 if (code := ended[-1].exit_code) is None else code


def live_run(home: Home, name: str) -> RunInfo:
    """Return the live run that name means. Raises RunNotFound, and UsageError for one that has ended."""
    info = settled(home, RunStore(home).find(name))
    if info.state not in LIVE_STATES:
        what = "is lost: whoever held it was killed" if info.state == "lost" else "has ended"
        raise UsageError(f"{info.name} {what}", hint=f"run: moat logs {info.name}")
    return info


def settled(home: Home, info: RunInfo) -> RunInfo:
    """Return a run as it is. One that nobody holds any more, after a crash of the machine, is ended by a daemon.

    That is started for it: it knows what there was of the run, and removes it.
    """
    if info.state not in LIVE_STATES or not is_abandoned(home, info):
        return info
    ensure_running(home)
    return asyncio.run(awaited(home, info, END_S))


def is_abandoned(home: Home, info: RunInfo) -> bool:
    """Whether neither a daemon nor whoever launched it holds a run."""
    if info.run_id in live_ids(home):
        return False
    try:
        connected(home, info).close()
    except SandboxFailed:
        return True
    return False
