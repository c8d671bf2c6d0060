"""`moat proxy`: the daemon as seen from the command line. Starts, stops and asks; everything else happens there."""

from __future__ import annotations

from dataclasses import asdict

import click

from moat.cli import output
from moat.daemon import lifecycle
from moat.paths import find_home


@click.group()
def proxy() -> None:
    """Start, stop and look at the daemon that holds the credentials."""


@proxy.command()
def start() -> None:
    """Start the daemon, unless it runs. Every command that needs it does the same."""
    health = lifecycle.ensure_running(find_home()).health()
    output.say(f"the daemon runs (process {health.pid}, proxy port {health.proxy_port})")


@proxy.command()
def stop() -> None:
    """Stop the daemon. Runs that still live lose their way out and are stopped."""
    output.say("the daemon is stopped" if lifecycle.stop(find_home()) else "the daemon was not running")


@proxy.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show whether the daemon runs, and what it does."""
    health = lifecycle.status(find_home())
    if as_json:
        output.show_json({"running": False} if health is None else {"running": True, **asdict(health)})
    elif health is None:
        output.show("the daemon is not running")
    else:
        output.show(f"the daemon runs since {health.started_at} (process {health.pid}, version {health.version})")
        output.show(f"proxy port  {health.proxy_port}, worker process {health.worker_pid}")
        output.show(f"live runs   {health.run_count}")
