"""`moat diff` and `moat apply`: what a run that worked on a copy of the workspace changed, looked at and taken over."""

from __future__ import annotations

from pathlib import Path

import click

from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.cli.known import complete_runs
from moat.cli.output import say, show, written
from moat.cli.runs import live_ids
from moat.paths import Home, find_home
from moat.runs.copies import as_branch, overview, recover, take_over
from moat.runs.results import files_in, result_of
from moat.trace.store import LIVE_STATES, RunStore


@click.command("diff")
@click.argument("name", metavar="RUN", shell_complete=complete_runs)
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
def diff(name: str, stat: bool) -> None:
    """Show what a run changed in its copy of the workspace, as a patch."""
    _, patch = _result(find_home(), name)
    if stat:
        show(overview(patch).rstrip() if patch else "nothing has changed")
    else:
        with written() as out:
            out.buffer.write(patch)


@click.command("apply")
@click.argument("name", metavar="RUN", shell_complete=complete_runs)
@click.option("--branch", metavar="B", help="As a commit on a new branch of the workspace's repository instead.")
def apply(name: str, branch: str | None) -> None:
    """Take what a run changed in its copy over into the workspace: all of it, or, if it does not fit, nothing."""
    info, patch = _result(find_home(), name)
    if not patch:
        show("nothing has changed")
        return
    workspace = Path(info.workspace)
    if branch:
        commit = as_branch(patch, workspace, branch, f"Changes of the run {info.name}")
        say(f"moat: branch {branch} is at {commit[:10]}")
    else:
        take_over(patch, workspace)
        count = files_in(patch)
        say(f"moat: changed {count} file{'' if count == 1 else 's'} in {workspace}")


def _result(home: Home, name: str) -> tuple[RunInfo, bytes]:
    info = RunStore(home).find(name, live_ids(home))
    if info.state in LIVE_STATES:
        raise UsageError(f"{info.name} is not over", hint=f"run: moat wait {info.name}")
    recover(home, info)
    patch = result_of(home, info.run_id)
    if patch is None:
        raise UsageError(f"{info.name} did not work on a copy", hint="start such runs with: moat run --copy")
    return info, patch
