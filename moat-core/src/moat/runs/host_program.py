"""Finds a program of this machine's and what must be shown so that it runs inside, where only /usr and /opt are seen.

    ~/.local/bin/agent ─▶ the file that the links lead to ─┬─▶ in a node_modules: that folder, read-only
                                                           └─▶ else the file alone
    its first line names an interpreter ─▶ that one too

Looks at links, the first line and nothing else; runs nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from moat.api.container import Mount
from moat.runtimes.layout import MERGED_FOLDERS, SYSTEM_FOLDERS

_FIRST_LINE_BYTES = 256  # of a script; the kernel reads as much (BINPRM_BUF_SIZE)
_SEEN = tuple(map(Path, (*SYSTEM_FOLDERS, *MERGED_FOLDERS)))


@dataclass(frozen=True, slots=True)
class HostProgram:
    """words: how it is started inside. mounts: what must be shown for that, at the same path."""

    words: tuple[str, ...]
    mounts: tuple[Mount, ...]


def find_program(name: str, search: str) -> HostProgram | None:
    """Return the program called name, None where there is none. search: PATH of the user's shell."""
    found = shutil.which(name, path=search)
    if found is None:
        return None
    program = Path(found).resolve()
    shown = [] if _is_seen(program) else [_shown_with(program)]
    words = [str(program)]
    if interpreter := _interpreter(program, search):
        words.insert(0, str(interpreter))
        shown += [] if _is_seen(interpreter) else [interpreter]
    return HostProgram(tuple(words), tuple(Mount(path, str(path), read_only=True) for path in dict.fromkeys(shown)))


def _is_seen(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _SEEN)


def _shown_with(program: Path) -> Path:
    """Return the outermost node_modules that program lies in, since packages are found from one another; else it."""
    folders = [parent for parent in program.parents if parent.name == "node_modules"]
    return folders[-1] if folders else program


def _interpreter(program: Path, search: str) -> Path | None:
    """Return what runs a script, None for what is no script or names nothing that is here."""
    with program.open("rb") as file:
        line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    words = line.removeprefix(b"#!").decode(errors="replace").split()
    if not line.startswith(b"#!") or not words:
        return None
    named = words[0]
    if Path(named).name == "env":
        named = next((word for word in words[1:] if not word.startswith("-")), "")
    found = shutil.which(named, path=search)
    return Path(found).resolve() if found else None
