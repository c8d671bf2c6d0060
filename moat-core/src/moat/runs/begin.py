"""Gives a run files of its own, which it may change: a script writes them inside, then becomes the command. Pure.

Files that are shown from outside are read-only, and cannot be replaced by name as most programs do when they save.
Nothing is written on this machine, so a link that an earlier run left leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from moat.api.container import ContainerSetup
from moat.api.errors import PlanConflict
from moat.api.runs import RunSpec

BEGIN = "/etc/moat/begin"
SHELL = "/bin/sh"


def begin_script(files: Mapping[str, str], home: str, *, replaces: bool = True) -> str:
    """Return the script. files: absolute path inside → contents. Raises PlanConflict for a path outside of home.

    replaces: whether files that are there are written anew; else they stay as they are.
    """
    import shlex  # not at the top: most runs have no such files

    lines = ["umask 077"]
    folders: dict[str, None] = {}
    for path in files:
        pure = PurePosixPath(path)
        if not pure.is_relative_to(home) or ".." in pure.parts or str(pure) != path or "\0" in files[path]:
            raise PlanConflict(f"an agent can have a file in {home}, not at {path}", hint="run: moat plugins")
        folders[str(pure.parent)] = None
    lines.append(f"mkdir -p -- {shlex.join(folders)}")
    for path, text in files.items():
        write = f"printf %s {shlex.quote(text)} > {shlex.quote(path)}"
        lines.append(write if replaces else f"test -e {shlex.quote(path)} || {write}")
    return "\n".join(["set -e", *lines, "umask 022", 'exec "$@"', ""])


def begin(spec: RunSpec, home: str) -> Iterator[tuple[str, ContainerSetup]]:
    """Yield what gives a run the files that are its own, where it has any, in the name of who wants it."""
    if spec.files:
        yield f"agent {spec.agent}", ContainerSetup(files={BEGIN: begin_script(spec.files, home)})


def begun(spec: RunSpec, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return command, after the script where there is one."""
    return (SHELL, BEGIN, *command) if spec.files else command
