"""`moat sessions`: conversations with agents in a workspace, to go on with."""

from __future__ import annotations

from pathlib import Path

import click

from moat.cli.output import say, show_json, show_table
from moat.paths import current_folder, find_home
from moat.plugins.manager import Plugins
from moat.runs.collect import found_at
from moat.runs.sessions import Sessions

TITLE_CHARS = 60


@click.command("sessions")
@click.argument("workspace", required=False, type=click.Path(path_type=Path), metavar="[WORKSPACE]")
@click.option("--json", "in_json", is_flag=True, help="Print JSON.")
def sessions(workspace: Path | None, in_json: bool) -> None:
    """List the sessions of agents in a workspace, the last first. Go on with one: moat AGENT --resume ID."""
    home, folder = find_home(), found_at(current_folder() / (workspace or "")).resolved
    agents = [offer.value for offer in Plugins.load().agent_offers()]
    found = [(agent.name, each) for agent in agents for each in Sessions(home, agent, folder).list()]
    found.sort(key=lambda pair: pair[1].modified_at, reverse=True)
    if in_json:
        show_json(
            [
                {"agent": name, "id": each.id, "modified_at": each.modified_at.isoformat(), "title": each.title}
                for name, each in found
            ]
        )
    elif found:
        rows = [(name, each.id, f"{each.modified_at:%Y-%m-%d %H:%M}", _short(each.title)) for name, each in found]
        show_table(("AGENT", "SESSION", "LAST (UTC)", "BEGAN WITH"), rows)
    else:
        say(f"no agent has worked in {folder} yet")


def _short(title: str) -> str:
    line = " ".join(title.split())
    return line if len(line) <= TITLE_CHARS else f"{line[: TITLE_CHARS - 1]}…"
