"""`moat snapshot`: keep a workspace's files as they are, see what changed since, bring them back."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from moat.cli.clean import confirm
from moat.cli.output import say, show, show_json, show_table, warn, written
from moat.paths import current_folder, find_home
from moat.runs.snapshots import ID_CHARS, Snapshot, Snapshots

_WORKSPACE = click.argument("workspace", required=False, type=click.Path(path_type=Path), metavar="[WORKSPACE]")


@click.group()
def snapshot() -> None:
    """Keep a workspace's files as they are, and bring them back. What .gitignore names is left out."""


@snapshot.command()
@_WORKSPACE
@click.option("-m", "--message", default="", metavar="TEXT", help="What to remember it by.")
def create(workspace: Path | None, message: str) -> None:
    """Keep the files as they are now; prints the snapshot's id."""
    made = _of(workspace).create(message or "by hand")
    warn_of_nested(made)
    show(made.short)


@snapshot.command("list")
@_WORKSPACE
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def list_snapshots(workspace: Path | None, in_json: bool) -> None:
    """List the snapshots of a workspace, newest first."""
    found = _of(workspace).all()
    if in_json:
        show_json([{"id": each.id, "at": each.at, "message": each.message} for each in found])
    elif found:
        show_table(
            ("ID", "AT", "MESSAGE"), [(each.short, each.at[:19].replace("T", " "), each.message) for each in found]
        )
    else:
        show("no snapshots yet; take one: moat snapshot create")


@snapshot.command()
@click.argument("reference", metavar="ID")
@_WORKSPACE
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
def diff(reference: str, workspace: Path | None, stat: bool) -> None:
    """Show what has changed since a snapshot."""
    kept = _of(workspace)
    options = ["--stat" if stat else "--patch", f"--color={'always' if sys.stdout.isatty() else 'never'}"]
    told = kept.diff(kept.find(reference), *options)
    with written() as out:
        out.buffer.write(told)


@snapshot.command()
@click.argument("reference", metavar="ID")
@_WORKSPACE
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(reference: str, workspace: Path | None, yes: bool) -> None:
    """Bring the files back as they were. A snapshot of what is there now is taken first."""
    kept = _of(workspace)
    wanted = kept.find(reference)
    if changed := kept.diff(wanted, "--stat").decode(errors="replace").rstrip():
        show(changed)
    confirm("undo these changes?" if changed else "nothing has changed; restore anyway?", yes=yes,
            again=f"moat snapshot restore {wanted.short} --yes")  # fmt: skip
    before = kept.restore(wanted)
    say(f"moat: restored {wanted.short}; what was there before is {before.short}")


@snapshot.command()
@click.argument("references", metavar="ID...", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), metavar="PATH", help="Of which workspace; this folder's.")
def remove(references: tuple[str, ...], workspace: Path | None) -> None:
    """Forget snapshots."""
    kept = _of(workspace)
    for each in [kept.find(reference) for reference in references]:
        kept.remove(each)
        show(each.short)


def warn_of_nested(made: Snapshot) -> None:
    """Tell which folders a snapshot could not keep."""
    if made.nested:
        warn(f"repositories inside of the workspace are not part of {made.id[:ID_CHARS]}: {', '.join(made.nested)}")


def _of(workspace: Path | None) -> Snapshots:
    return Snapshots(find_home(), workspace or current_folder())
