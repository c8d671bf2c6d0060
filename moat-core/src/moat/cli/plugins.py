"""`moat plugins`: what is installed, from which distribution, what it offers, and what is broken; and a new one.

list    one line each          info    all about one          new    the files of a provider to begin with
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from moat.cli import output
from moat.cli.plugin_info import Info, infos_of, meant, show_info
from moat.plugins.manager import Plugins
from moat.plugins.scaffold import begin


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin as listed. problem: empty when it works."""

    plugin: str
    distribution: str
    version: str
    grants: tuple[str, ...]
    agents: tuple[str, ...]
    runtimes: tuple[str, ...]
    secrets: tuple[str, ...]
    problem: str


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List plugins, what they offer, and which are broken; begin one.

    Without a command it is `moat plugins list`.
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_plugins(ctx: click.Context, as_json: bool) -> None:
    """List plugins, one a line."""
    _list(_wants_json(ctx, as_json))


@plugins.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def info(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show all about one: what it offers, and where its grants are spent.

    NAME is a plugin, a distribution, or a grant, an agent, a runtime or a source of secrets that one offers.
    """
    infos, conflicts = infos_of(Plugins.load())
    found = meant(name, infos)
    if _wants_json(ctx, as_json):
        output.show_json({"plugins": [asdict(each) for each in found], "conflicts": conflicts})
        return
    for number, each in enumerate(found):
        if number:
            output.show()
        show_info(each)
    _warn(conflicts)


@plugins.command("new")
@click.argument("name")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def new(name: str, directory: Path | None) -> None:
    """Write a provider to begin with, ready to be installed and tested.

    NAME is that of the grant. DIRECTORY is new or empty; moat-provider-NAME unless you say so.
    """
    folder = begin(name, directory, Plugins.load())
    output.say(f"{folder} is a provider that passes its tests. Say in {_module(folder)} where its token goes. Then:")
    for command in _next(name, folder):
        output.show(command)


def _module(folder: Path) -> Path:
    return next(folder.glob("src/*/__init__.py"))


def _next(name: str, folder: Path) -> Iterable[str]:
    """Yield what to type: into the environment that moat itself is in, where plugins have to be."""
    folder, python = folder.resolve(), shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    yield f"{pip} -e {shlex.quote(f'{folder}[test]')}"
    yield f"{python} -m pytest {shlex.quote(str(folder))}"
    yield f"moat grant {name}"


def _wants_json(ctx: click.Context, as_json: bool) -> bool:
    return as_json or bool(ctx.parent and ctx.parent.params["as_json"])


def _list(as_json: bool) -> None:
    infos, conflicts = infos_of(Plugins.load())
    entries = [_entry(each) for each in infos]
    if as_json:
        output.show_json({"plugins": [asdict(entry) for entry in entries], "conflicts": conflicts})
    else:
        _show(entries)
        _warn(conflicts)


def _entry(of: Info) -> Entry:
    return Entry(
        of.plugin,
        of.distribution,
        of.version,
        tuple(each.name for each in of.grants),
        tuple(each.name for each in of.agents),
        tuple(each.name for each in of.runtimes),
        tuple(each.name for each in of.secrets),
        of.problem,
    )


def _show(entries: Sequence[Entry]) -> None:
    rows = [
        (
            entry.plugin,
            entry.distribution,
            entry.version,
            *(", ".join(names) or "-" for names in (entry.grants, entry.agents, entry.runtimes, entry.secrets)),
            entry.problem or "ok",
        )
        for entry in entries
    ]
    output.show_table(("PLUGIN", "DISTRIBUTION", "VERSION", "GRANTS", "AGENTS", "RUNTIMES", "SECRETS", "STATE"), rows)


def _warn(conflicts: Sequence[str]) -> None:
    for conflict in conflicts:
        output.warn(conflict)
