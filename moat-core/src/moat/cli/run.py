"""`moat run`: one command in a sealed sandbox. Its output is the command's; what moat says goes to standard error.

moat run [PATH] [options] -- COMMAND…        everything after the first `--` is the command, untouched

The options, as click reads them. The usual spellings are read without click (`run_options`): what is added here belongs
there too.
"""

from __future__ import annotations

from typing import Any

import click

from moat.cli import known
from moat.cli.dashes import DashedCommand, after_dashes
from moat.cli.run_start import carry_on


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
def run(ctx: click.Context, /, words: tuple[str, ...], **typed: Any) -> int:
    """Run a command with no credentials inside and no way out but the proxy.

    PATH is the folder that the command works in (default: this one). Its moat.yaml, if there is one, says what
    the options do not; without COMMAND its command is run, or its agent. The exit code is the command's.
    """
    return carry_on(words, after_dashes(ctx), ctx, **typed)
