"""Starts what `moat run` was asked for, whoever read the command line.

Loads the least that lets a runtime begin; what it takes to ask, plan and perform (`run_steps`) is loaded meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from moat.cli.start import hush_logs
from moat.runs.attach import fill_closed
from moat.runtimes import runtime_called
from moat.runtimes.detect import Begun

if TYPE_CHECKING:
    import click

    from moat.api.runtimes import Runtime
    from moat.cli.run_options import Typed


def start(typed: Typed) -> int:
    """Do what a plain command line says, and return the exit code."""
    return carry_on(typed.words, typed.command, None, **typed.options)


def carry_on(
    words: tuple[str, ...],
    command: tuple[str, ...] | None,
    ctx: click.Context | None,
    *,
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
    """Do what was typed, and return the exit code. ctx: click's, which is there unless there is a command."""
    fill_closed()
    with Begun() as begun:
        is_held = not (dry_run or detached or tty or os.isatty(0))  # by us; else by a supervisor
        ours = _begin(begun, runtime) if is_held else {}
        hush_logs()
        from moat.plugins.manager import Plugins  # here and not at the top: the gate starts meanwhile

        plugins = Plugins.load()
        runtimes = [ours.get(each.name, each) for each in plugins.runtimes()]
        from moat.cli import run_steps as steps

        command = steps.checked_command(words, command)
        steps.check_json(in_json=in_json, dry_run=dry_run)
        home = steps.find_home()
        options = steps.options_of(words, command, runtime=runtime, interactive=tty, **typed)
        if branch or start:
            from moat.cli.wt import in_a_worktree

            options = in_a_worktree(options, home, branch, start, makes=not dry_run)
        settings = steps.load_settings(home)
        asked = steps.ask(options, settings, runtimes, os.environ, ignores_file=ignore_file, sources=plugins)
        if asked.spec.agent and ctx is not None:  # only where there is no command, and then click reads
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
    ours = runtime_called(name)
    if ours is None:
        return {}
    begun.begin(ours)
    return {ours.name: ours}
