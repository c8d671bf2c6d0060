"""`moat route`: names for ports of a live run. The daemon serves them; here they are asked for and shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from moat.api.errors import UsageError
from moat.cli.known import complete_live_runs
from moat.cli.output import say, show
from moat.cli.runs import live_ids
from moat.daemon.client import DaemonClient
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import RouteRequest
from moat.paths import find_home
from moat.trace.store import RunStore

_ENDPOINT = re.compile(r"([^:]+):([0-9]{1,5})")


@click.command("route")
@click.argument("run", shell_complete=complete_live_runs)
@click.argument("endpoints", nargs=-1, metavar="[NAME:PORT]...")
@click.option(
    "--publish", "published", multiple=True, metavar="NAME:PORT",
    help="The port of 127.0.0.1 that leads to NAME, too; any that is free, unless you say.",
)  # fmt: skip
@click.option("--as", "agent", default="", metavar="NAME", help="Another name than the run's own.")
@click.option("--remove", is_flag=True, help="Reach them no more.")
def route(run: str, endpoints: tuple[str, ...], published: tuple[str, ...], agent: str, remove: bool) -> None:
    """Reach ports of RUN from this machine: web:3000 becomes http://web.RUN.localhost:8080/, and a port of 127.0.0.1.

    The names given replace those given before; they end with the run.
    """
    home = find_home()
    if remove == bool(endpoints):
        raise UsageError("give endpoints as NAME:PORT, or --remove", hint=f"run: moat route {run} web:3000")
    client = DaemonClient(home)
    info = RunStore(home).find(run, live_ids(home))
    if remove:
        client.unroute(agent or info.name)
        say(f"{agent or info.name} leads nowhere any more")
        return
    made = client.route(agent or info.name, RouteRequest(info.run_id, parse_endpoints(endpoints, published)))
    for name in sorted(made.urls):
        show(made.urls[name] + (f" 127.0.0.1:{made.published[name]}" if name in made.published else ""))


def parse_endpoints(texts: Sequence[str], published: Sequence[str] = ()) -> tuple[RoutedPort, ...]:
    """Return the ports that NAME:PORT spell, and where they are published. Raises UsageError."""
    ports, at = [_parsed(text) for text in texts], dict(map(_parsed, published))
    if unknown := sorted(at.keys() - {name for name, _ in ports}):
        raise UsageError(f"--publish names {unknown[0]}, which is no endpoint", hint=f"add its port: {unknown[0]}:3000")
    return tuple(RoutedPort(name, port, at.get(name, 0)) for name, port in ports)


def _parsed(text: str) -> tuple[str, int]:
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no endpoint", hint="write it as web:3000")
    return match[1], int(match[2])
