"""`moat open`: a port of a live run in the user's browser. Which ports there are is read from what the daemon keeps."""

from __future__ import annotations

import webbrowser

import click

from moat.api.errors import DaemonError, MoatError, UsageError
from moat.cli.known import complete_live_runs
from moat.cli.output import say, show, show_json
from moat.cli.ports import Address, addresses_of
from moat.cli.reach import live_run
from moat.daemon.client import DaemonClient
from moat.paths import Home, find_home


@click.command("open")
@click.argument("run", default="", shell_complete=complete_live_runs, metavar="[RUN]")
@click.argument("port", default="", metavar="[PORT]")
@click.option("-p", "--print", "only_prints", is_flag=True, help="Only print the addresses, all if no PORT is named.")
@click.option("--json", "in_json", is_flag=True, help="The same as JSON, with names and ports.")
def open_(run: str, port: str, only_prints: bool, in_json: bool) -> None:
    """Open a port of RUN in the browser, and print its address.

    PORT is its name, or its number inside. Both can be left away where there is only one.
    """
    found = chosen(addresses(find_home(), run), run, port)
    if in_json:
        show_json([{**each.as_json(), "run_id": each.run_id} for each in found])
        return
    if not only_prints:
        found = [_only(found)]
    for each in found:
        show(each.url)
        if each.published:
            say(f"moat: {each.name} is at {each.loopback} too, for what does not speak HTTP")
    if not only_prints and not webbrowser.open(found[0].url):
        raise MoatError("no browser can be started here", hint=f"open {found[0].url} yourself, or set BROWSER")


def addresses(home: Home, run: str) -> list[Address]:
    """Return the ports of a live run that can be reached, of all live runs where none is named.

    Raises RunNotFound, and UsageError for a run that has ended.
    """
    wanted = live_run(home, run).run_id if run else ""
    try:
        client = DaemonClient(home)
        routing_port, live = client.health().routing_port, {info.run_id for info in client.runs()}
    except DaemonError:
        return []
    return addresses_of(home, live & {wanted} if wanted else live, routing_port)


def chosen(found: list[Address], run: str, port: str) -> list[Address]:
    """Return the addresses that are meant. Raises UsageError, with what to type, where there is none."""
    if not found:
        problem = f"{run} has no port that can be reached" if run else "no run has a port that can be reached"
        raise UsageError(problem, hint=f"run: moat route {run or 'RUN'} web:3000, or set ports in moat.yaml")
    matching = [each for each in found if port in ("", each.name, str(each.port))]
    if not matching:
        hint = f"run: moat open {run} {found[0].name}"
        if port.isdecimal():
            hint += f", or to reach it too: moat route {run} {_joined(found)} other:{port}"
        raise UsageError(f"{run} has no port {port!r}, only {', '.join(each.name for each in found)}", hint=hint)
    return matching


def _joined(found: list[Address]) -> str:
    return " ".join(f"{each.name}:{each.port}" for each in found)


def _only(found: list[Address]) -> Address:
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{each.agent} {each.name}" for each in found)
    raise UsageError(f"there are several: {listed}", hint=f"run: moat open {found[0].agent} {found[0].name}")
