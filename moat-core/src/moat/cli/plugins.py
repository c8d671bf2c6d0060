"""`moat plugins`: what is installed, from which distribution, what it offers, and what is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import click

from moat.api.errors import PluginError
from moat.cli import output
from moat.plugins.discovery import Candidate
from moat.plugins.manager import Plugins


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin as shown. problem: empty when it works."""

    plugin: str
    distribution: str
    version: str
    grants: tuple[str, ...]
    agents: tuple[str, ...]
    runtimes: tuple[str, ...]
    secrets: tuple[str, ...]
    problem: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List plugins, what they offer, and which are broken."""
    loaded = Plugins.load()
    conflicts: list[str] = []
    grants = _offered(lambda: [(o.plugin, o.value.name) for o in loaded.credential_offers()], conflicts)
    agents = _offered(lambda: [(o.plugin, o.value.name) for o in loaded.agent_offers()], conflicts)
    runtimes = _offered(lambda: [(o.plugin, o.value.name) for o in loaded.runtime_offers()], conflicts)
    secrets = _offered(lambda: [(o.plugin, o.value.name) for o in loaded.secret_source_offers()], conflicts)
    problems = {problem.plugin.title: problem.text for problem in loaded.problems}
    entries = [_entry(candidate, grants, agents, runtimes, secrets, problems) for candidate in loaded.candidates]
    if as_json:
        output.show_json({"plugins": [asdict(entry) for entry in entries], "conflicts": conflicts})
    else:
        _show(entries, conflicts)


def _offered(ask: Callable[[], list[tuple[Candidate, str]]], conflicts: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the offered names by plugin; a name claimed twice goes to conflicts instead."""
    names: dict[str, tuple[str, ...]] = {}
    try:
        for plugin, name in ask():
            names[plugin.title] = (*names.get(plugin.title, ()), name)
    except PluginError as failure:
        conflicts.append(failure.problem)
    return names


def _entry(
    plugin: Candidate,
    grants: Mapping[str, tuple[str, ...]],
    agents: Mapping[str, tuple[str, ...]],
    runtimes: Mapping[str, tuple[str, ...]],
    secrets: Mapping[str, tuple[str, ...]],
    problems: Mapping[str, str],
) -> Entry:
    return Entry(
        plugin.name,
        plugin.distribution,
        plugin.version,
        grants.get(plugin.title, ()),
        agents.get(plugin.title, ()),
        runtimes.get(plugin.title, ()),
        secrets.get(plugin.title, ()),
        problems.get(plugin.title, ""),
    )


def _show(entries: Sequence[Entry], conflicts: Sequence[str]) -> None:
    rows = [
        (
            entry.plugin,
            entry.distribution,
            entry.version,
            _list(entry.grants),
            _list(entry.agents),
            _list(entry.runtimes),
            _list(entry.secrets),
            entry.problem or "ok",
        )
        for entry in entries
    ]
    output.show_table(("PLUGIN", "DISTRIBUTION", "VERSION", "GRANTS", "AGENTS", "RUNTIMES", "SECRETS", "STATE"), rows)
    for conflict in conflicts:
        output.warn(conflict)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"
