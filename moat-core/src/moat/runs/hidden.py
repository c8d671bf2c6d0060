"""Finds what of a folder is to be hidden from a run. Reads names only, and follows no link on its way.

What fits is decided here, once, when the run begins. A folder that fits is not looked into: all of it is hidden.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from moat.api.errors import UsageError
from moat.config.excludes import Exclude
from moat.runs.masks import Hidden

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)  # since it was listed; or nothing that a run could see

Rules = Sequence[tuple[tuple[str, ...], Exclude]]  # what stands before a path when it is tried, and the pattern


def hidden_in(root: Path, rules: Rules) -> tuple[Hidden, ...]:
    """Return what rules hide below root, a real path, in order.

    A link that fits is hidden by what it leads to, where that lies below root too. Raises UsageError for a folder that
    cannot be looked into, since what is in it would then be seen.
    """
    if not root.is_dir():
        return ()
    found = {each.path: each for each in _fitting(root, rules)}
    for link in [each for each in found.values() if each.kind == "link"]:
        if (led := _led_to(root, link)) is not None:
            found.setdefault(led.path, led)
    return tuple(found[path] for path in sorted(found))


def open_below(root: Path, parts: Sequence[str]) -> int:
    """Open a folder below root without following any link. Raises OSError."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


def _fitting(root: Path, rules: Rules) -> Iterator[Hidden]:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        for name, is_link, is_folder in _entries(root, parts):
            path = (*parts, name)
            fitting = (each for before, each in rules if each.fits((*before, *path), is_folder=is_folder))
            if (exclude := next(fitting, None)) is not None:
                yield Hidden("/".join(path), "link" if is_link else "folder" if is_folder else "file", exclude.text)
            elif is_folder and not is_link:
                waiting.append(path)


def _entries(root: Path, parts: Sequence[str]) -> list[tuple[str, bool, bool]]:
    """Return name, whether it is a link, and whether it is or leads to a folder."""
    try:
        folder = open_below(root, parts)
    except OSError as failure:
        if failure.errno in _GONE:
            return []
        path, why = root.joinpath(*parts), os.strerror(failure.errno or 0)
        raise UsageError(f"{path} cannot be looked into: {why}", hint="move it, or take exclude out") from None
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_symlink(), _leads_to_a_folder(entry)) for entry in entries]
    finally:
        os.close(folder)


def _leads_to_a_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _led_to(root: Path, link: Hidden) -> Hidden | None:
    try:
        path = (root / link.path).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return None
    if path == root or not path.is_relative_to(root):
        return None
    return Hidden(str(path.relative_to(root)), "folder" if path.is_dir() else "file", link.pattern)
