"""What a user may mount into a run: `SRC[:DST][:ro]` read and checked.

Looks at text only; whether the source exists, and what it is, is for whoever can look (`runs/collect.py`).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from moat.api.container import Mount
from moat.api.errors import UsageError

WORKSPACE = "/workspace"  # where every run finds it
VOLUME_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MODES = {"ro": True, "rw": False}
_SHAPE = "write SRC, SRC:DST or SRC:DST:ro"

# Nothing may be laid over these or beneath them: the kernel's views, and what makes names and trust inside ours.
_CLOSED_TREES = ("/proc", "/sys", "/dev", "/etc/moat", "/etc/ssl", "/etc/pki", "/run/moat")
# Nothing may be laid over these, since it would hide what a run needs; beneath them is fine.
_CLOSED_FOLDERS = ("/", "/bin", "/etc", "/home", "/home/moat", "/lib", "/lib32", "/lib64", "/libx32", "/run", "/sbin",
                   "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var", "/workspace",
                   "/tmp")  # noqa: S108 # inside a run, where it is the run's own  # fmt: skip
_CLOSED_FILES = ("/etc/group", "/etc/gshadow", "/etc/hostname", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.preload",
                 "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf", "/etc/shadow")  # fmt: skip


def parse_mount(text: str, cwd: Path, home: Path) -> Mount:
    """Return the mount that text describes; without DST the path inside is the path outside.

    cwd: what a relative SRC starts from. home: what a leading `~` stands for. SRC is not looked at.
    Raises UsageError when text has another shape or DST is not to be mounted over.
    """
    parts = text.split(":")
    read_only = _MODES[parts.pop()] if len(parts) > 1 and parts[-1] in _MODES else False
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"mount {text!r} has too many parts or an empty one", hint=_SHAPE)
    source = absolute(parts[0], cwd, home)
    return Mount(source, checked_target(parts[1] if len(parts) == 2 else str(source)), read_only)


def parse_volume(text: str) -> tuple[str, str]:
    """Return name and path inside of `NAME:DST`. Raises UsageError when text has another shape."""
    name, _, target = text.partition(":")
    if not VOLUME_NAME.fullmatch(name) or not target.startswith("/"):
        raise UsageError(f"volume {text!r} is not a name and a path inside", hint="write NAME:/DST, as in cache:/cache")
    return name, checked_target(target)


def checked_target(text: str) -> str:
    """Return text as a normal absolute path inside a run. Raises UsageError when nothing may be mounted there."""
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or "\0" in text:
        raise UsageError(f"{text!r} is no absolute path inside a run", hint="write DST like /data, without ..")
    target = "/" + "/".join(path.parts[1:])  # PurePosixPath keeps a leading //
    if target in _CLOSED_FOLDERS or target in _CLOSED_FILES or _is_in_closed_tree(target):
        raise UsageError(f"nothing can be mounted at {target} inside a run", hint=f"{_SHAPE} with another DST")
    return target


def absolute(text: str, cwd: Path, home: Path) -> Path:
    """Return the path that text names. cwd: what a relative one starts from. home: what a leading `~` stands for."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return cwd / text


def _is_in_closed_tree(target: str) -> bool:
    return any(target == tree or target.startswith(f"{tree}/") for tree in _CLOSED_TREES)
