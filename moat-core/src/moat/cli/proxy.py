"""`moat proxy`: the daemon as seen from the command line. Starts, stops and asks; everything else happens there."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict

import click

from moat.api.errors import DaemonError, MoatError
from moat.cli import output
from moat.cli.logs import logs
from moat.daemon import lifecycle
from moat.daemon.client import HEALTH_TIMEOUT_S, DaemonClient
from moat.daemon.environment import for_daemon
from moat.daemon.process import living, set_kept
from moat.daemon.protocol import GrantState, Health
from moat.paths import Home, find_home, private_folder

STATES = {"static": "not renewed", "fresh": "renewed", "failing": "cannot be renewed now", "revoked": "revoked"}


@click.group()
def proxy() -> None:
    """Start, stop and look at the daemon that holds the credentials."""


proxy.add_command(logs)


@proxy.command()
@click.option("--foreground", is_flag=True, help="Stay, and show its log; for service managers.")
@click.option("--keep", is_flag=True, help="Have it stay when it has nothing to do, until: moat proxy stop.")
def start(foreground: bool, keep: bool) -> None:
    """Start the daemon, unless it runs. Every command that needs it does the same."""
    home = find_home()
    if keep:
        private_folder(home.daemon)
        set_kept(home, kept=True)
    if foreground:
        _become(home)
    _say_running(lifecycle.ensure_running(home).health())


@proxy.command()
def stop() -> None:
    """Stop the daemon. Runs that still live are stopped too; exchanges under way have three seconds to end."""
    home = find_home()
    _say_waiting(home)
    output.say("the daemon is stopped" if lifecycle.stop(home) else "the daemon was not running")


@proxy.command()
def restart() -> None:
    """Replace the daemon by a new one. Live runs go on: the new one takes them over."""
    home = find_home()
    _warn_of_bound_runs(home)
    _say_running(lifecycle.restart(home).health())


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
        _show(health)


def grant_line(state: GrantState) -> str:
    """Return what is known about a grant in use, for people."""
    parts = [STATES[state.state]]
    if state.expires_at:
        parts.append(f"expires {state.expires_at}")
    if state.next_at:
        parts.append(f"next {state.next_at}")
    if state.problem:
        parts.append(state.problem)
    if state.state == "revoked":
        option = f"--profile {state.profile} " if state.profile else ""
        parts.append(f"run: moat grant {option}{state.grant}")
    return "; ".join(parts)


def _show(health: Health) -> None:
    build = f"{health.version}, {health.commit[:12]}" if health.commit else health.version
    output.show(f"the daemon runs since {health.started_at} (process {health.pid}, version {build})")
    output.show(f"proxy port  {health.proxy_port}, worker process {health.worker_pid}")
    if health.routing_port:
        output.show(f"routing     http://localhost:{health.routing_port}/")
    output.show(f"live runs   {health.run_count}")
    for state in health.grants:
        output.show(f"grant       {_name(state)}: {grant_line(state)}")


def _name(state: GrantState) -> str:
    return f"{state.grant} ({state.profile})" if state.profile else state.grant


def _say_waiting(home: Home) -> None:
    """Say what the end of the daemon waits for, if it may take longer than a moment."""
    try:
        number = DaemonClient(home).health(HEALTH_TIMEOUT_S).run_count
    except DaemonError:  # there is none, or one that is killed if need be
        return
    if number:
        runs = "1 live run ends" if number == 1 else f"{number} live runs end"
        output.say(f"{runs} with the daemon; waiting for exchanges under way, 3 s at most")


def _warn_of_bound_runs(home: Home) -> None:
    try:
        number = DaemonClient(home).health(HEALTH_TIMEOUT_S).bound_run_count
    except DaemonError:  # it does not answer: all the more reason to replace it
        return
    if number:
        runs = "1 live run has" if number == 1 else f"{number} live runs have"
        output.say(
            f"{runs} credentials in the daemon's memory only: 503 until registered again by the tool they are of"
        )


def _say_running(health: Health) -> None:
    output.say(f"the daemon runs (process {health.pid}, proxy port {health.proxy_port})")


def _become(home: Home) -> None:
    """Become the daemon: this process is replaced by it, with its reduced environment."""
    if (pid := living(home)) is not None:
        raise DaemonError(f"the daemon runs already (process {pid})", hint="run: moat proxy stop")
    command = [*lifecycle.COMMAND, "--home", str(home.root), "--foreground"]
    sys.stdout.flush()
    try:
        os.execve(command[0], command, for_daemon(os.environ))  # noqa: S606 # no shell, our own interpreter
    except OSError as failure:
        raise MoatError(f"the daemon cannot be started: {failure}") from failure
