"""`moat wt`: runs in git worktrees, one for each branch. The run has a repository of its own; its commits are fetched.

moat wt BRANCH [options of moat run] -- COMMAND…      moat wt list      moat wt remove BRANCH      moat wt prune
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click

from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.cli.clean import confirm
from moat.cli.output import say, show, show_json, show_table
from moat.cli.runs import live_ids
from moat.ids import NAME
from moat.paths import Home, current_folder, find_home
from moat.runs.merge import Options
from moat.runs.repositories import recover_commits
from moat.runs.worktrees import (
    Checkout,
    checkouts,
    commits_ahead,
    find_checkout,
    is_changed,
    open_worktree,
    remove_worktree,
    repository_of,
)
from moat.trace.store import LIVE_STATES, RunStore

TITLES = ("BRANCH", "COMMITS", "FILES", "RUN", "FOLDER")


class Branches(click.Group):
    """A group whose first word is a branch, unless it is one of the commands; then all of it is `moat run`'s."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, `moat run` for a branch."""
        if cmd_name in self.commands or cmd_name.startswith("-"):
            return super().get_command(ctx, cmd_name)
        from moat.cli.run import run

        return run

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return a command and its arguments: `moat run --worktree BRANCH …` for a branch."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest if name in self.commands else ["--worktree", args[0], *rest]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line."""
        return ["BRANCH", "[OPTIONS of moat run]", "--", "COMMAND...", "| COMMAND [ARGS]..."]


@click.group("wt", cls=Branches)
def wt() -> None:
    """Run a command in a git worktree of BRANCH, which is made if need be, and so is the branch.

    The worktree lies beside the repository, in REPOSITORY.worktrees/BRANCH. All options are those of moat run; --from
    REV says where a new branch begins. What the run commits is on BRANCH when it ends; it can change no other branch,
    no hook and no configuration of the repository. For a branch with the name of a command: moat run --worktree.
    """


@wt.command("list")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def list_worktrees(in_json: bool) -> None:
    """List the worktrees of this repository: new commits, changed files, the run that works there."""
    home, repository = find_home(), repository_of(current_folder())
    recovered(home, repository)
    found = [_entry(home, repository, each) for each in _linked(repository)]
    if in_json:
        show_json(found)
    elif found:
        show_table(
            TITLES,
            [(str(each["branch"] or "(none)"), str(each["commits"]), "changed" if each["changed"] else "clean",
              str(each["run"] or "-"), str(each["folder"])) for each in found],
        )  # fmt: skip
    else:
        show("no worktrees yet; make one: moat wt BRANCH -- COMMAND")


@wt.command()
@click.argument("branches", metavar="BRANCH...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also with files that no commit has: they are lost.")
def remove(branches: tuple[str, ...], force: bool) -> None:
    """Remove worktrees. Their branches, and so their commits, stay."""
    home, repository = find_home(), repository_of(current_folder())
    recovered(home, repository)
    found = [_found(repository, branch) for branch in branches]
    for each in found:
        refuse_busy(home, each.folder)
        if not force and is_changed(each.folder):
            problem = f"{each.folder} has files that no commit has"
            raise UsageError(problem, hint=f"commit them, or lose them: moat wt remove --force {each.branch}")
    for each in found:
        remove_worktree(repository, each)
        say(f"moat: removed {each.folder}; the branch {each.branch} stays")


@wt.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(yes: bool) -> None:
    """Remove the worktrees in which nothing is left to do: no run, no changed file, every commit here already."""
    home, repository = find_home(), repository_of(current_folder())
    recovered(home, repository)
    entries = {each: _entry(home, repository, each) for each in _linked(repository) if each.branch}
    done = [each for each, entry in entries.items() if not (entry["commits"] or entry["changed"] or entry["run"])]
    if not done:
        show("there is nothing to prune")
        return
    for each in done:
        show(f"{each.branch}  {each.folder}")
    confirm(f"remove {'this worktree' if len(done) == 1 else f'these {len(done)} worktrees'}?", yes=yes,
            again="moat wt prune --yes")  # fmt: skip
    for each in done:
        remove_worktree(repository, each)


def in_a_worktree(options: Options, home: Home, branch: str, start: str, *, makes: bool) -> Options:
    """Return options with the worktree of a branch as the workspace. makes: one that is not there is made, or refused.

    Raises UsageError for a branch that a run works on already, and what open_worktree raises.
    """
    if not branch:
        raise UsageError("--from goes with --worktree only", hint="run: moat wt BRANCH --from REV -- COMMAND")
    repository = repository_of(options.workspace)
    recovered(home, repository)
    found = find_checkout(repository, branch)
    if found is not None:
        refuse_busy(home, found.folder)
    elif not makes:
        raise UsageError(f"{branch} has no worktree yet, and --dry-run makes none", hint="run it without --dry-run")
    opened = open_worktree(options.workspace, branch, start)
    if opened.is_new:
        began = f", a new branch from {opened.start}" if opened.start else ""
        say(f"moat: made the worktree {opened.folder} of {branch}{began}")
    return replace(options, workspace=opened.folder, worktree=opened.worktree, name=options.name or run_name(branch))


def run_name(branch: str) -> str:
    """Return a name for runs on a branch, "" where it has no letter that could be in one."""
    name = re.sub(r"[^a-z0-9_]+", "-", branch.lower()).strip("-_")[:63]
    return name if NAME.fullmatch(name) else ""


def recovered(home: Home, repository: Path) -> None:
    """Fetch what runs committed whose holder was killed, and say so. Raises CommitsLost."""
    if any(home.copies.glob("*.own")):
        over = {info.run_id for info in RunStore(home).list() if info.state not in LIVE_STATES}
        for run_id in recover_commits(home, repository, over):
            say(f"moat: what {run_id} had committed when it was cut off is fetched")


def refuse_busy(home: Home, folder: Path) -> None:
    """Raise UsageError where a run works in a folder."""
    if (busy := _run_in(home, folder)) is not None:
        raise UsageError(f"the run {busy.name} works in {folder}", hint=f"run: moat attach {busy.name}")


def _run_in(home: Home, folder: Path) -> RunInfo | None:
    runs = RunStore(home).list(live_ids(home))
    there = str(folder.resolve())
    return next((info for info in runs if info.state in LIVE_STATES and info.workspace == there), None)


def _linked(repository: Path) -> list[Checkout]:
    return [each for each in checkouts(repository) if not each.is_main]


def _found(repository: Path, branch: str) -> Checkout:
    found = find_checkout(repository, branch)
    if found is None or found.is_main:
        raise UsageError(f"there is no worktree of {branch!r}", hint="run: moat wt list")
    return found


def _entry(home: Home, repository: Path, checkout: Checkout) -> dict[str, object]:
    busy = _run_in(home, checkout.folder)
    return {
        "branch": checkout.branch,
        "folder": str(checkout.folder),
        "commits": commits_ahead(repository, checkout.branch) if checkout.branch else 0,
        "changed": is_changed(checkout.folder),
        "run": busy.name if busy else None,
    }
