"""Files of a workspace that run by themselves on the host, outside of any sandbox: which of them did a run change?

A run may write to its workspace, that is what it is for. A hook of git, a task of an editor or a shell's start file
that it leaves there is run later by the user, with the user's rights. So these are looked at before and after.

Links are never followed: a folder that a run replaced by a link is itself the change. Of git's configuration, where
branches come from and go to does not count, since every `git push -u` writes it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from moat.paths import Home, write_private

FILE_NAME = "changed.json"
MAX_FILES = 4_096  # of one folder of hooks or tasks; no real one comes near
MAX_BYTES = 1024 * 1024  # read of each; its size is compared besides

FILES = (
    ".git", ".git/config", ".git/info/attributes", ".gitmodules", ".envrc", ".mise.toml", "mise.toml", ".exrc",
    ".nvim.lua", ".vimrc", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile", ".zshrc", ".zshenv",
    ".zprofile", ".zlogin", ".config/fish/config.fish", ".vscode/tasks.json", ".vscode/settings.json",
    ".vscode/launch.json", ".vscode/mcp.json", ".zed/tasks.json", ".zed/settings.json", ".idea/workspace.xml",
    ".devcontainer.json", ".mcp.json", ".claude/settings.json", ".claude/settings.local.json", ".cursor/mcp.json",
    ".codex/config.toml", "moat.yaml",
)  # fmt: skip
FOLDERS = (
    ".git/hooks", ".git/modules", ".githooks", ".husky", ".devcontainer", ".idea/runConfigurations", ".claude/hooks",
)  # fmt: skip

# Lines of a git configuration that run nothing: `ext::` and the like in an address would, and are told.
_PLAIN_CONFIG = (
    rb"""(?x)\[(branch|remote)\ "[^"\\]*"\]\s*|\s*(remote|merge|rebase|url|pushurl|fetch)\s*=(?!.*::)[^\\"]*"""
)

Marks = Mapping[str, str]


def marks_of(workspace: Path) -> Marks:
    """Return a mark of each such file that is there, by its path in the workspace. What cannot be read is marked so."""
    found = {name: mark for name in (*FILES, *FOLDERS) if (mark := _mark(workspace, name))}
    for folder in FOLDERS:
        found |= {name: mark for name in _inside(workspace, folder) if (mark := _mark(workspace, name))}
    return found


def changes(before: Marks, after: Marks) -> tuple[str, ...]:
    """Return what is new, different or gone, as `path (new)`, in order."""
    told = {name: "changed" if name in before else "new" for name, mark in after.items() if before.get(name) != mark}
    told |= dict.fromkeys(before.keys() - after.keys(), "removed")
    return tuple(f"{name} ({what})" for name, what in sorted(told.items()))


def write_changes(home: Home, run_id: str, changed: tuple[str, ...]) -> None:
    """Keep what a run changed, for who asks later. Raises UNWRITABLE of moat.paths."""
    write_private(home.run(run_id) / FILE_NAME, json.dumps(changed, indent=1).encode())


def read_changes(home: Home, run_id: str) -> tuple[str, ...]:
    """Return what a run changed; empty where nothing is written down."""
    try:
        data = json.loads((home.run(run_id) / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(str(each) for each in data) if isinstance(data, list) else ()


def _mark(workspace: Path, name: str) -> str:
    """Return a text that differs when the file does; "" where there is none. A folder has none: its files do."""
    path = workspace
    for part in name.split("/"):
        path = path / part
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                return f"link {part} {path.readlink()}"
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as failure:
            return f"error {failure.errno}"
    if not stat.S_ISREG(status.st_mode):
        return "" if stat.S_ISDIR(status.st_mode) else f"kind {stat.S_IFMT(status.st_mode):o}"
    return f"{stat.S_IMODE(status.st_mode):o} {_digest(path)}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data, size = file.read(MAX_BYTES), os.fstat(file.fileno()).st_size
    except OSError as failure:
        return f"error {failure.errno}"
    if path.name == "config" and size <= MAX_BYTES:
        data, size = b"\n".join(line for line in data.split(b"\n") if not re.fullmatch(_PLAIN_CONFIG, line)), 0
    import hashlib

    return f"{size} {hashlib.sha256(data).hexdigest()}"


def _inside(workspace: Path, folder: str) -> Iterator[str]:
    """Yield the files below a folder of the workspace that may run by themselves, MAX_FILES at most."""
    if (workspace / folder.split("/")[0]).is_symlink() or (workspace / folder).is_symlink():
        return
    for path in itertools.islice(_files(workspace / folder), MAX_FILES):
        if folder != ".git/modules" or path.parent.name == "hooks" or path.name == "config":
            yield path.relative_to(workspace).as_posix()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, but for the objects of git repositories, of which there may be very many."""
    for top, folders, names in os.walk(folder):
        if "HEAD" in names:
            folders[:] = [name for name in folders if name != "objects"]
        yield from (Path(top) / name for name in names)
