"""Lays something empty over what a run is not to see: an empty folder over a folder, an empty file over anything else.

Pure. They are files of ours and mounts like others, so every runtime that shows mounts hides as well. What a run writes
into such a folder is thrown away with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Literal

from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.light import dataclass

MOST = 500  # each is a mount, and engines take long over thousands
_FOLDER = ".hidden"  # no path inside begins so


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is hidden of a folder that is shown. path: below that folder. pattern: whose work it is."""

    path: str
    kind: Literal["folder", "file", "link"]
    pattern: str


@dataclass(frozen=True, slots=True)
class Masks:
    """What hides it. folders, files: to be made, empty. patterns: path inside → the pattern that hides it."""

    mounts: tuple[Mount, ...] = ()
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)


def masks(hidden: Mapping[str, Sequence[Hidden]], mounts: Sequence[Mount], place: Path) -> Masks:
    """Return what hides hidden: target of a mount → what of it. mounts: all that are shown. place: for files of ours.

    Raises UsageError for more than can be mounted.
    """
    targets = [mount.target for mount in mounts]
    found = [
        (path, each)
        for target, several in hidden.items()
        for each in several
        if _shown_by(targets, path := f"{target}/{each.path}") == target
    ]
    wanted = list(_once(found))
    if len(wanted) > MOST:
        problem = f"exclude hides {len(wanted)} files and folders of their own, and only {MOST} can be"
        raise UsageError(problem, hint="exclude the folders that they are in, or work on a copy: workspace.mode")
    empty = place / _FOLDER / "file"
    made, shown = [], []
    for number, (path, each) in enumerate(wanted):
        source = place / _FOLDER / f"folder-{number}" if each.kind == "folder" else empty
        made += [source] if each.kind == "folder" else []
        shown.append(Mount(source, path, read_only=each.kind != "folder"))
    files = (empty,) if len(made) < len(shown) else ()
    return Masks(tuple(shown), tuple(made), files, {path: each.pattern for path, each in wanted})


def _once(found: Sequence[tuple[str, Hidden]]) -> Iterator[tuple[str, Hidden]]:
    """Yield what is neither a link, which leads to what is hidden itself or nowhere, nor in a hidden folder."""
    folders: set[str] = set()
    for path, each in sorted(found, key=lambda one: len(PurePosixPath(one[0]).parts)):
        if each.kind == "link" or path in folders or any(str(up) in folders for up in PurePosixPath(path).parents):
            continue
        folders.add(path)
        yield path, each


def _shown_by(targets: Sequence[str], path: str) -> str:
    """Return the innermost mount that a path is seen through; what another lays over a place is not hidden there."""
    return max((target for target in targets if PurePosixPath(path).is_relative_to(target)), key=len)
