"""`moat run`: one command in a sealed sandbox. Its output is the command's; what moat says goes to standard error.

moat run [PATH] [options] -- COMMAND…        everything after the first `--` is the command, untouched

Loads the least that lets a runtime begin; what it takes to ask, plan and perform (`run_steps`) is loaded meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from moat.cli import known
from moat.cli.dashes import DashedCommand, after_dashes
from moat.plugins.manager import Plugins
from moat.runs.attach import fill_closed
from moat.runtimes import moat_runtimes
from moat.runtimes.detect import Begun

if TYPE_CHECKING:
    from moat.api.runtimes import Runtime


@click.command("run", cls=DashedCommand)
@click.argument("words", nargs=-1, metavar="[PATH]", shell_complete=known.complete_folders)
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="G",
    shell_complete=known.complete_grants,
    help="Spend this grant's credential for the run.",
)
@click.option(
    "--profile",
    envvar="MOAT_PROFILE",
    default="",
    metavar="P",
    shell_complete=known.complete_profiles,
    help="Whose credentials to spend.",
)
@click.option("-e", "--env", "variables", multiple=True, metavar="K=V", help="Set a variable inside.")
@click.option("--mount", "mounts", multiple=True, metavar="SRC[:DST][:ro]", help="Show a host path inside.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="NAME:DST", help="A folder that this workspace's runs keep."
)
@click.option(
    "--runtime",
    envvar="MOAT_RUNTIME",
    default="",
    metavar="R",
    shell_complete=known.complete_runtimes,
    help="docker, podman, bubblewrap …",
)
@click.option("--image", envvar="MOAT_IMAGE", default="", metavar="I", help="Container image, for docker and podman.")
@click.option("--policy", type=click.Choice(["permissive", "strict"]), help="What may leave; permissive by default.")
@click.option("--allow-host", "allowed", multiple=True, metavar="H", help="Let this host out in strict.")
@click.option("--rule", "rules", multiple=True, metavar="R", help="As 'allow GET host/path/**'; the first that fits.")
@click.option(
    "--host-port",
    "host_ports",
    multiple=True,
    metavar="[N=]PORT",
    help="Open a port of this machine: host.moat.internal.",
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="[N=]S[@V]",
    shell_complete=known.complete_services,
    help="Beside it: postgres@16, redis, …",
)
@click.option("--allow-socket", "allow_sockets", is_flag=True, help="Mount sockets of the host too: each is a way out.")
@click.option("--name", default="", metavar="N", help="Name the run; otherwise it gets one.")
@click.option("--copy", "on_a_copy", is_flag=True, help="Work on a copy of the workspace: moat diff, moat apply.")
@click.option("--worktree", "branch", default="", metavar="B", help="Work in a git worktree of this branch: moat wt.")
@click.option("--from", "start", default="", metavar="REV", help="With --worktree: where a new branch begins.")
@click.option(
    "--exclude", "excluded", multiple=True, metavar="P", help="Hide this of the workspace: .env, dist/, *.key"
)
@click.option("--snapshot/--no-snapshot", default=None, help="Keep the workspace's files first: moat snapshot list.")
@click.option("--snapshot-every", "every", default="", metavar="T", help="Also while it works, each 10m, say.")
@click.option("--trace-bodies", is_flag=True, help="Its trace has headers and beginnings of bodies, without secrets.")
@click.option("-d", "--detach", "detached", is_flag=True, help="Leave it running; print its name.")
@click.option("-t/-T", "--tty/--no-tty", default=None, help="A terminal of its own, also with -d; or never one.")
@click.option("-y", "--yes", is_flag=True, help="Grant what moat.yaml asks for, and remember it.")
@click.option("--ignore-file", is_flag=True, help="Do not read the workspace's moat.yaml.")
@click.option("--dry-run", is_flag=True, help="Show the whole plan, and run nothing.")
@click.option("--json", "in_json", is_flag=True, help="With --dry-run: as JSON.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    runtime: str,
    branch: str,
    start: str,
    yes: bool,
    ignore_file: bool,
    dry_run: bool,
    in_json: bool,
    detached: bool,
    tty: bool | None,
    **typed: Any,
) -> int:
    """Run a command with no credentials inside and no way out but the proxy.

    PATH is the folder that the command works in (default: this one). Its moat.yaml, if there is one, says what
    the options do not; without COMMAND its command is run, or its agent. The exit code is the command's.
    """
    fill_closed()
    with Begun() as begun:
        is_held = not (dry_run or detached or tty or os.isatty(0))  # by us; else by a supervisor
        ours = _begin(begun, runtime) if is_held else {}
        plugins = Plugins.load()
        runtimes = [ours.get(each.name, each) for each in plugins.runtimes()]
        from moat.cli import run_steps as steps

        command = steps.checked_command(words, after_dashes(ctx))
        steps.check_json(in_json=in_json, dry_run=dry_run)
        home = steps.find_home()
        options = steps.options_of(words, command, runtime=runtime, interactive=tty, **typed)
        if branch or start:
            from moat.cli.wt import in_a_worktree

            options = in_a_worktree(options, home, branch, start, makes=not dry_run)
        settings = steps.load_settings(home)
        asked = steps.ask(options, settings, runtimes, os.environ, ignores_file=ignore_file, sources=plugins)
        if asked.spec.agent:
            from moat.cli.agents import run_agent

            asked = run_agent(asked, home, runtimes, ctx, is_given=yes, is_rehearsed=dry_run)
        if dry_run:
            return steps.rehearse(asked, home, runtimes, in_json=in_json)
        spec = asked.spec if asked.spec.agent else steps.agreed(asked, home, os.environ, is_given=yes)
        held = begun if is_held else None
        return steps.carry_out(spec, home, runtimes, held, detached=detached)


def _begin(begun: Begun, name: str) -> dict[str, Runtime]:
    """Have the runtime of ours that was named on the command line begin, before plugins are even looked for.

    Others do when they are chosen. Returns what has begun, by its name.
    """
    ours = {each.name: each for each in moat_runtimes() if each.name == name}
    for each in ours.values():
        begun.begin(each)
    return ours
