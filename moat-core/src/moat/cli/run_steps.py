"""What `moat run` does with what was typed: checks it, asks, plans, performs, or only shows the plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from moat.api.errors import UsageError
from moat.api.runs import HostPort, RunSpec
from moat.api.runtimes import Runtime, Stdio
from moat.api.services import Service
from moat.cli.asking import Asked, agreed, ask
from moat.cli.output import say, show, show_json, warn
from moat.cli.perform import DETACHED_SIZE, Performance
from moat.cli.run_words import own_secrets
from moat.config.mounts import WORKSPACE, parse_mount, parse_volume
from moat.config.settings import load_settings
from moat.ids import checked_profile
from moat.paths import Home, current_folder, find_home
from moat.runs.attach import own_terminal
from moat.runs.exposure import describe, exposed_secrets
from moat.runs.merge import Options
from moat.runs.prepare import Prepared, prepare
from moat.runtimes.detect import Begun

YEAR_S = 365 * 86_400

__all__ = [
    "agreed", "ask", "carry_out", "check_json", "checked_command", "find_home", "load_settings", "options_of",
    "rehearse",
]  # fmt: skip


def carry_out(
    spec: RunSpec, home: Home, runtimes: Sequence[Runtime], begun: Begun | None, *, detached: bool,
    estimate: str = "",
) -> int:  # fmt: skip
    """Prepare and perform the run, and return its exit code. begun: where this process is to hold it.

    estimate: what its image takes, in words, should it have to be built.
    """
    stdio = Stdio(0, 1, 2)
    terminal = terminal_of(spec, own_terminal(stdio), detached=detached)
    prepared = prepare(spec, home, runtimes, os.environ, terminal, begun)
    _warn(prepared, spec)
    if prepared.recipe is not None:
        from moat.cli.image import build_image

        build_image(prepared, spec.policy, home, estimate)
    if prepared.absent:
        from moat.cli.services import fetch_images

        fetch_images(prepared)
    if spec.snapshots.before:
        _keep_files(home, spec.workspace, prepared.facts.name)
    return Performance(prepared, spec, home).held(stdio, detached=detached)


def options_of(
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
    every: str,
    **asked: Any,
) -> Options:
    """Return what the command line says, as values. asked: what needs no reading, by the names of Options."""
    cwd = current_folder()
    workspace = cwd / words[0] if words else cwd
    check_text((str(workspace), *command, *variables, *mounts, *volumes))
    return Options(
        workspace=workspace,
        command=command,
        env=parse_variables(variables),
        mounts=tuple(parse_mount(text, cwd, Path.home()) for text in mounts),
        volumes=dict(map(parse_volume, volumes)),
        profile=checked_profile(profile),
        excluded=checked_excludes(excluded),
        host_ports=parse_host_ports(host_ports),
        services=parse_services(services),
        snapshot_every_s=seconds_of(every),
        **asked,
    )


def check_text(texts: Iterable[str]) -> None:
    """Raise UsageError for what is no UTF-8: the daemon and engines speak JSON, which holds nothing else."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            problem = f"{os.fsencode(text)!r} is no UTF-8"
            raise UsageError(problem, hint="rename it, or have a script in the workspace say it") from None


def check_json(*, in_json: bool, dry_run: bool) -> None:
    """Raise UsageError for --json where there is nothing to show."""
    if in_json and not dry_run:
        raise UsageError("--json goes with --dry-run only", hint="run: moat run --dry-run --json -- COMMAND")


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


def seconds_of(text: str) -> int | None:
    """Return the seconds of --snapshot-every, None where it is not said. Raises UsageError."""
    if not text:
        return None
    from moat.cli.clean import as_time

    try:
        seconds = int(as_time(text).total_seconds())
    except UsageError:
        seconds = 0
    if not 0 < seconds < YEAR_S:
        raise UsageError(f"--snapshot-every {text!r} is no time", hint="write --snapshot-every 10m")
    return seconds


def terminal_of(spec: RunSpec, own: tuple[int, int] | None, *, detached: bool) -> tuple[int, int] | None:
    """Return the size of the run's terminal, None where it gets none. own: of the terminal that moat is typed into.

    Raises UsageError for -t where nobody could type: the command's input is a file or a pipe then.
    """
    if spec.interactive is False:
        return None
    if own or not spec.interactive:
        return own
    if detached:
        return DETACHED_SIZE
    if spec.origins.get("interactive") == "--tty":
        problem = "moat's own input is no terminal here, so the run can have none"
        raise UsageError(problem, hint="leave out -t; or run it in the background, to attach to later: moat run -dt")
    return None


def rehearse(asked: Asked, home: Home, runtimes: Sequence[Runtime], *, in_json: bool) -> int:
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
