"""Carries a prepared run out, here or in a process of its own, and says what a person wants to know of it.

A run with a terminal, and one with -d, gets a supervisor, so that this process may go. Any other holds our own standard
descriptors, which are the command's; it ends with us.
"""

from __future__ import annotations

import os
import termios
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moat.api.errors import MoatError, RunNotFound
from moat.api.runs import RunInfo, RunSpec
from moat.api.runtimes import Sandbox, Stdio
from moat.cli.output import say, show, warn
from moat.cli.run_words import commits_left, commits_line, end_line, refused_grants, start_line
from moat.paths import Home
from moat.runs.attach import Attachment, first_terminal
from moat.runs.outcomes import commits_of
from moat.runs.prepare import Prepared
from moat.runs.registering import registered_early
from moat.runs.results import files_in, result_of
from moat.runs.watched import read_changes
from moat.trace.store import RunStore

if TYPE_CHECKING:
    from moat.runs.console import Shape

SHOWN_CHANGES = 6
DETACHED_SIZE = (24, 80)  # rows and columns of a terminal that nobody looks at yet


class Performance:
    """One run that was prepared."""

    def __init__(self, prepared: Prepared, spec: RunSpec, home: Home) -> None:
        self._prepared = prepared
        self._spec = spec
        self._home = home

    def held(self, stdio: Stdio, *, detached: bool = False) -> int:
        """Run it to its end, or until we are detached from it, and return the exit code. Raises MoatError."""
        if detached:
            return self._detached(stdio)
        if os.isatty(stdio.stdin):
            return self._watched(stdio)
        return self._here(stdio)

    def _here(self, stdio: Stdio) -> int:
        plan, runtime, client = self._prepared.plan, self._prepared.runtime, self._prepared.client
        with registered_early(plan, self._home, client, runtime, stdio, _load) as early:
            import asyncio

            from moat.runs.launch import Launch

            launch = Launch(plan, runtime, client, self._home, self._announce, told=_told, early=early)
            outcome = asyncio.run(launch.perform(Attachment(stdio)))
        if outcome.info is not None:
            self._say_end(outcome.info)
            say_result(self._home, outcome.info)
        warn_of_changes(outcome.changed)
        return outcome.exit_code

    def _watched(self, stdio: Stdio) -> int:
        import asyncio

        from moat.runs.supervise import start_supervisor
        from moat.runs.viewer import Viewer

        shape = own_shape(stdio, self._prepared.plan.sandbox.terminal)
        sock = start_supervisor(self._prepared, self._home, shape)
        screen = first_terminal(stdio.stdout, stdio.stderr)  # an output that is none is the command's, untouched
        shown = replace(stdio, stdout=stdio.stdin if screen is None else screen) if shape.size else stdio
        viewer = Viewer(sock, shown, self._sealed, _told, types=shape.size is not None)
        sight = asyncio.run(viewer.follow())
        return said_after(self._home, self._prepared.plan.sandbox.run_id, sight.how == "left", sight.code)

    def _detached(self, stdio: Stdio) -> int:
        import asyncio

        from moat.runs.console import Shape
        from moat.runs.supervise import start_supervisor
        from moat.runs.viewer import Viewer

        sock = start_supervisor(self._prepared, self._home, Shape(self._prepared.plan.sandbox.terminal))
        asyncio.run(Viewer(sock, stdio, self._sealed, _told).follow(attach=False, until_sealed=True))
        name = self._prepared.plan.sandbox.name
        show(name)
        say(f"moat: {name} runs on · moat logs -f {name} · moat stop {name}")
        return 0

    def _announce(self, sandbox: Sandbox) -> None:
        self._sealed(sandbox.caveat)

    def _sealed(self, caveat: str) -> None:
        if caveat:
            warn(caveat)
        if self._spec.host_ports and caveat:
            warn("no port of this machine can be reached by clients that do not use the proxy, since it has no door")
        if self._spec.ports and caveat:
            warn("no port of this run can be reached from outside, since it has no door")
        is_sealed = self._prepared.runtime.sealed and not caveat
        reached = self._reached() if self._spec.ports and not caveat else []
        say(start_line(self._prepared, self._spec, is_sealed=is_sealed, reached=reached))

    def _reached(self) -> list[str]:
        """Return where ports are reached; a daemon that cannot say so costs the run nothing."""
        from moat.cli.ports import addresses_of

        try:
            routing_port = self._prepared.client.health().routing_port
        except MoatError:
            return []
        found = addresses_of(self._home, {self._prepared.facts.run_id}, routing_port)
        return [each.url + (f" ({each.loopback})" if each.published else "") for each in found]

    def _say_end(self, info: RunInfo) -> None:
        say_end(info, RunStore(self._home).network(info.run_id))


def _load() -> None:
    """Load what performs a run."""
    import moat.runs.launch  # noqa: F401 # for its own sake


def say_end(info: RunInfo, network: Path) -> None:
    """Say how a run ended, and which of its credentials is to be renewed."""
    say(end_line(info, network))
    for line in refused_grants(info, network):
        warn(line)


def _told(line: str) -> None:
    say(f"moat: {line}")


def said_after(home: Home, run_id: str, has_left: bool, code: int) -> int:
    """Say how looking at a run ended, and return the exit code: the run's, or 0 when it goes on without us."""
    store = RunStore(home)
    try:
        info = store.read(run_id)
    except RunNotFound:
        return code
    if has_left:
        say(f"moat: {info.name} goes on · moat attach {info.name} · moat stop {info.name}")
        return 0
    say_end(info, store.network(run_id))
    say_result(home, info)
    warn_of_changes(read_changes(home, run_id))
    return code


def warn_of_changes(changed: tuple[str, ...]) -> None:
    """Tell which files that run by themselves on the host a run changed."""
    if changed:
        rest = f" and {len(changed) - SHOWN_CHANGES} more" if len(changed) > SHOWN_CHANGES else ""
        shown = ", ".join(changed[:SHOWN_CHANGES])
        warn(f"the run changed files that run by themselves here: {shown}{rest}; look at them before you use git or an "
             "editor there")  # fmt: skip


def say_result(home: Home, info: RunInfo) -> None:
    """Tell at the end of a run that worked on a copy or in a worktree what to do with its changes."""
    if (commits := commits_of(home, info.run_id)) is not None:
        say(commits_line(commits, info.workspace))
        for problem in commits_left(commits):
            warn(problem)
    patch = result_of(home, info.run_id)
    if patch is not None:
        count = files_in(patch)
        todo = f" · moat diff {info.name} · moat apply {info.name}" if count else ""
        say(f"moat: {count} file{'' if count == 1 else 's'} changed in the copy{todo}")


def own_shape(stdio: Stdio, size: tuple[int, int] | None) -> Shape:
    """Return a terminal like ours; what of our own descriptors is none is given to the command as it is."""
    from moat.runs.console import Shape

    given = {number: os.dup(fd) for number, fd in enumerate((stdio.stdin, stdio.stdout, stdio.stderr))
             if not os.isatty(fd)}  # fmt: skip
    return Shape(size, termios.tcgetattr(stdio.stdin), given)
