"""`moat volume`: the volumes that runs keep from one to the next. Runs make them; here they are seen and removed."""

from __future__ import annotations

from pathlib import Path

import click

from moat.api.errors import UsageError
from moat.cli.clean import confirm, shown_size
from moat.cli.output import say, show, show_json, show_table
from moat.cli.runs import live_ids
from moat.paths import Home, current_folder, find_home
from moat.runs.remains import size_of
from moat.runs.volumes import Volume, all_volumes, remove_volume, users
from moat.trace.store import RunStore


@click.group()
def volume() -> None:
    """List and remove the volumes that runs keep. `moat run` makes those that --volume or moat.yaml asks for."""


@volume.command("list")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def list_volumes(in_json: bool) -> None:
    """List the volumes of all workspaces."""
    found = [(each, size_of(each.path)) for each in all_volumes(find_home())]
    if in_json:
        show_json([{"name": each.name, "workspace": str(each.workspace), "path": str(each.path), "bytes": size}
                   for each, size in found])  # fmt: skip
    elif found:
        show_table(
            ("VOLUME", "SIZE", "WORKSPACE"),
            [(each.name, shown_size(size), _place(each)) for each, size in found],
        )
    else:
        show("no volumes yet; moat run makes those that --volume or moat.yaml asks for")


@volume.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), metavar="PATH", help="Of which workspace; this folder's.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(names: tuple[str, ...], workspace: Path | None, dry_run: bool, yes: bool) -> None:
    """Remove volumes of a workspace, and all that runs kept in them. Says how much that is, and asks."""
    home, folder = find_home(), (workspace or current_folder()).resolve()
    of_it = {each.name: each for each in all_volumes(home) if each.workspace == folder}
    if missing := [name for name in names if name not in of_it]:
        raise UsageError(f"{folder} has no volume {missing[0]}", hint="run: moat volume list")
    doomed = [of_it[name] for name in dict.fromkeys(names)]
    _refuse_used(home, doomed)
    for each in doomed:
        show(f"{shown_size(size_of(each.path)):>9}  {each.name}, of {each.workspace}")
    if dry_run:
        return
    where = f" --workspace {workspace}" if workspace else ""
    confirm("remove all that is in it?" if len(doomed) == 1 else "remove all that is in them?", yes=yes,
            again=f"moat volume remove {' '.join(names)}{where} --yes")  # fmt: skip
    for each in doomed:
        remove_volume(each)
    say(f"moat: removed {len(doomed)}")


def _refuse_used(home: Home, doomed: list[Volume]) -> None:
    live = live_ids(home)
    running = [(info.name, info.workspace) for info in RunStore(home).list() if info.run_id in live]
    for each in doomed:
        if by := users(each, running):
            raise UsageError(f"{by[0]} may be using the volume {each.name}", hint=f"run: moat stop {by[0]}")


def _place(each: Volume) -> str:
    return str(each.workspace) if each.workspace.is_dir() else f"{each.workspace} (gone)"
