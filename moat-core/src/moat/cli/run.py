"""`moat run`: one command in a sealed sandbox. Its output is the command's; what moat says goes to standard error.

moat run [PATH] [options] -- COMMAND…        everything after the first `--` is the command, untouched
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from moat.api.errors import UsageError
from moat.api.runs import HostPort, RunSpec
from moat.api.runtimes import Runtime, Stdio
from moat.api.services import Service
from moat.cli.asking import Asked, agreed, ask
from moat.cli.dashes import DashedCommand, after_dashes
from moat.cli.output import say, show, show_json, warn
from moat.cli.perform import DETACHED_SIZE, Performance
from moat.cli.run_words import own_secrets
from moat.config.mounts import WORKSPACE, parse_mount, parse_volume
from moat.config.settings import load_settings
from moat.ids import checked_profile
from moat.paths import Home, find_home
from moat.plugins.manager import Plugins
from moat.runs.attach import fill_closed, own_terminal
from moat.runs.exposure import describe, exposed_secrets
from moat.runs.merge import Options
from moat.runs.prepare import Prepared, prepare


@click.command("run", cls=DashedCommand)
@click.argument("words", nargs=-1, metavar="[PATH]")
@click.option("--grant", "grants", multiple=True, metavar="G", help="Spend this grant's credential for the run.")
@click.option("--profile", envvar="MOAT_PROFILE", default="", metavar="P", help="Whose credentials to spend.")
@click.option("-e", "--env", "variables", multiple=True, metavar="K=V", help="Set a variable inside.")
@click.option("--mount", "mounts", multiple=True, metavar="SRC[:DST][:ro]", help="Show a host path inside.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="NAME:DST", help="A folder that this workspace's runs keep."
)
@click.option("--runtime", envvar="MOAT_RUNTIME", default="", metavar="R", help="bubblewrap, docker or process.")
@click.option("--image", envvar="MOAT_IMAGE", default="", metavar="I", help="Container image, for docker.")
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
@click.option("--service", "services", multiple=True, metavar="[N=]S[@V]", help="Beside it: postgres@16, redis, …")
@click.option("--allow-socket", "allow_sockets", is_flag=True, help="Mount sockets of the host too: each is a way out.")
@click.option("--name", default="", metavar="N", help="Name the run; otherwise it gets one.")
@click.option("--copy", "on_a_copy", is_flag=True, help="Work on a copy of the workspace: moat diff, moat apply.")
@click.option("--worktree", "branch", default="", metavar="B", help="Work in a git worktree of this branch: moat wt.")
@click.option("--from", "start", default="", metavar="REV", help="With --worktree: where a new branch begins.")
@click.option(
    "--exclude", "excluded", multiple=True, metavar="P", help="Hide this of the workspace: .env, dist/, *.key"
)
@click.option("--snapshot", is_flag=True, help="Keep the workspace's files first: moat snapshot list.")
@click.option("-d", "--detach", "detached", is_flag=True, help="Leave it running; print its name.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal of its own, also with -d, to attach to later.")
@click.option("-y", "--yes", is_flag=True, help="Grant what moat.yaml asks for, and remember it.")
@click.option("--ignore-file", is_flag=True, help="Do not read the workspace's moat.yaml.")
@click.option("--dry-run", is_flag=True, help="Show the whole plan, and run nothing.")
@click.option("--json", "in_json", is_flag=True, help="With --dry-run: as JSON.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    branch: str,
    start: str,
    yes: bool,
    ignore_file: bool,
    dry_run: bool,
    in_json: bool,
    snapshot: bool,
    detached: bool,
    tty: bool,
    **asked: Any,
) -> int:
    """Run a command with no credentials inside and no way out but the proxy.

    PATH is the folder that the command works in (default: this one). Its moat.yaml, if there is one, says what
    the options do not; without COMMAND its command is run. The exit code is the command's.
    """
    fill_closed()
    command = checked_command(words, after_dashes(ctx))
    if in_json and not dry_run:
        raise UsageError("--json goes with --dry-run only", hint="run: moat run --dry-run --json -- COMMAND")
    home = find_home()
    options = _options(words, command, **asked)
    if branch or start:
        from moat.cli.wt import in_a_worktree

        options = in_a_worktree(options, home, branch, start, makes=not dry_run)
    runtimes = Plugins.load().runtimes()
    wanted = ask(options, load_settings(home), runtimes, os.environ, ignores_file=ignore_file)
    if dry_run:
        return _rehearse(wanted, home, runtimes, in_json)
    spec = agreed(wanted, home, os.environ, is_given=yes)
    return _carry_out(spec, home, runtimes, snapshot=snapshot, detached=detached, tty=tty)


def _options(
    words: tuple[str, ...],
    command: tuple[str, ...],
    *,
    variables: tuple[str, ...],
    mounts: tuple[str, ...],
    volumes: tuple[str, ...],
    profile: str,
    excluded: tuple[str, ...],
    host_ports: tuple[str, ...],
    services: tuple[str, ...],
    **asked: Any,
) -> Options:
    """Return what the command line says, as values. asked: what needs no reading, by the names of Options."""
    cwd = Path.cwd()
    return Options(
        workspace=cwd / words[0] if words else cwd,
        command=command,
        env=parse_variables(variables),
        mounts=tuple(parse_mount(text, cwd, Path.home()) for text in mounts),
        volumes=dict(map(parse_volume, volumes)),
        profile=checked_profile(profile),
        excluded=checked_excludes(excluded),
        host_ports=parse_host_ports(host_ports),
        services=parse_services(services),
        **asked,
    )


def _carry_out(
    spec: RunSpec, home: Home, runtimes: Sequence[Runtime], *, snapshot: bool, detached: bool, tty: bool
) -> int:
    stdio = Stdio(0, 1, 2)
    terminal = own_terminal(stdio) or (DETACHED_SIZE if tty else None)
    prepared = prepare(spec, home, runtimes, os.environ, terminal)
    _warn(prepared, spec)
    if prepared.recipe is not None:
        from moat.cli.image import build_image

        build_image(prepared, spec.policy, home)
    if prepared.absent:
        from moat.cli.services import fetch_images

        fetch_images(prepared)
    if snapshot:
        _keep_files(home, spec.workspace, prepared.facts.name)
    return Performance(prepared, spec, home).held(stdio, detached=detached)


def checked_command(words: tuple[str, ...], command: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the command that was typed after `--`, () for that of moat.yaml.

    Raises UsageError, with what to type, when words are a command rather than a folder, or several folders.
    """
    if command is None and words and (len(words) > 1 or not Path(words[0]).is_dir()):
        raise UsageError("the command must stand after --", hint=f"run: moat run -- {' '.join(words)}")
    if len(words) > 1:
        raise UsageError(f"only one folder can be the workspace, not {' and '.join(words)}", hint="use --mount")
    return command or ()


def parse_host_ports(texts: Iterable[str]) -> tuple[HostPort, ...]:
    """Return the ports of --host-port. Raises UsageError."""
    if not texts:
        return ()
    from moat.config.host_ports import parse_host_port

    return tuple(map(parse_host_port, texts))


def parse_services(texts: Sequence[str]) -> tuple[Service, ...]:
    """Return the services of --service. Raises UsageError."""
    if not texts:
        return ()
    from moat.config.services import parse_service

    return tuple(map(parse_service, texts))


def parse_variables(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables of -e K=V; the last of a name counts. Raises UsageError for text without `=`."""
    variables: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"-e {name or text!r} has no value", hint=f"write -e {name or 'NAME'}=value")
        variables[name] = value
    return variables


def checked_excludes(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns of --exclude. Raises UsageError for one that is none."""
    if texts:
        from moat.config.excludes import parse_exclude

        for text in texts:
            try:
                parse_exclude(text)
            except ValueError as failure:
                raise UsageError(f"--exclude {text!r} {failure}", hint="write --exclude .env") from None
    return texts


def _rehearse(asked: Asked, home: Home, runtimes: Sequence[Runtime], in_json: bool) -> int:
    """Show the plan. Nobody is asked for anything, and no secret is fetched."""
    spec = asked.spec
    prepared = prepare(spec, home, runtimes, os.environ)
    _warn(prepared, spec)
    not_granted = asked.warnings(home)
    for warning in not_granted:
        warn(warning)
    from moat.cli.plan_words import as_json, as_text

    if in_json:
        show_json(as_json(prepared, spec, not_granted))
    else:
        show(as_text(prepared, spec))
    return 0


def _keep_files(home: Home, workspace: Path, name: str) -> None:
    from moat.cli.snapshot import warn_of_nested
    from moat.runs.snapshots import Snapshots

    kept = Snapshots(home, workspace).create(f"before {name}")
    warn_of_nested(kept)
    say(f"moat: snapshot {kept.short} · back to it: moat snapshot restore {kept.short}")


def _warn(prepared: Prepared, spec: RunSpec) -> None:
    warnings = [*prepared.plan.warnings, *own_secrets(spec)]
    if spec.policy.rules:
        from moat.net.batch import batch_warnings

        warnings += batch_warnings(spec.policy)
    hidden = [each.path for each in prepared.facts.hidden.get(WORKSPACE, ())]
    if seen := describe(exposed_secrets(prepared.facts.paths[spec.workspace].resolved, hidden)):
        warnings.append(seen)
    if not prepared.runtime.sealed:
        warnings.append(f"{prepared.runtime.name} does not isolate: the command can go around the proxy")
    for warning in warnings:
        warn(warning)
