"""Volumes: folders that the runs of one workspace keep from one to the next. No other workspace's run is shown them.

    <MOAT_HOME>-volumes/<hash of the workspace's path>/<name>/      beside them `.workspace`, that path

They belong to the user, as runs do, so each runtime shows them like any folder, and two of them can share one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moat.api.errors import MoatError
from moat.config.mounts import VOLUME_NAME
from moat.paths import UNWRITABLE, Home, private_folder, remove_tree, write_private
from moat.runs.hidden import open_below

_MARK = ".workspace"


class VolumeFailed(MoatError):
    """A volume could not be made or removed."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. workspace: whose runs see it."""

    name: str
    workspace: Path
    path: Path


def make_volumes(home: Home, workspace: Path, names: Iterable[str]) -> None:
    """Make those volumes of a workspace that are not there. workspace: a real path. Raises VolumeFailed."""
    folder = home.volumes_of(workspace)
    try:
        private_folder(folder)
        if not (folder / _MARK).exists():
            write_private(folder / _MARK, os.fsencode(workspace) + b"\n")
        for name in names:
            private_folder(folder / name)
    except UNWRITABLE as failure:
        raise VolumeFailed(f"the volumes in {folder} cannot be made: {failure}", hint=f"see: ls -ld {folder}") from None


def make_place(workspace: Path, place: str) -> None:
    """Make the folder of a workspace that a volume is to lie over, since an engine would make it root's.

    place: below the workspace. Follows no link; where it cannot be made, the runtime says what is wrong.
    """
    parts = PurePosixPath(place).parts
    for end in range(len(parts)):
        try:
            folder = open_below(workspace, parts[:end])
        except OSError:
            return
        try:
            os.mkdir(parts[end], dir_fd=folder)
        except OSError:
            pass  # most often it is there
        finally:
            os.close(folder)


def all_volumes(home: Home) -> list[Volume]:
    """Return every volume, by workspace and name."""
    if not home.volumes.is_dir():
        return []
    found = [each for folder in home.volumes.iterdir() if (folder / _MARK).is_file() for each in _in(folder)]
    return sorted(found, key=lambda volume: (volume.workspace, volume.name))


def volumes_of_nobody(home: Home) -> list[tuple[Path, Path, list[str]]]:
    """Return the folder, the workspace and the names of volumes, for each workspace that is not there any more."""
    gone = [each for each in all_volumes(home) if not os.path.lexists(each.workspace)]
    folders = dict.fromkeys((each.path.parent, each.workspace) for each in gone)
    return [(folder, of, [each.name for each in gone if each.workspace == of]) for folder, of in folders]


def remove_volume(volume: Volume) -> None:
    """Remove a volume, and what says whose it was with the last. Raises VolumeFailed."""
    aside = volume.path.with_name(f".{volume.name}.removed")  # at once it is none any more, and not half of one
    try:
        remove_tree(aside)  # of a removal that was cut short
        volume.path.rename(aside)
        remove_tree(aside)
        if not _in(volume.path.parent):
            remove_tree(volume.path.parent)
    except OSError as failure:
        problem = f"the volume {volume.name} cannot be removed: {failure.strerror or failure}"
        raise VolumeFailed(problem, hint=f"see: ls -ld {volume.path}") from None


def users(volume: Volume, live: Collection[tuple[str, str]]) -> list[str]:
    """Return the names of the runs that may have a volume in use. live: name and workspace of each that lives."""
    return [name for name, workspace in live if Path(workspace) == volume.workspace]


def _in(folder: Path) -> list[Volume]:
    workspace = Path(os.fsdecode((folder / _MARK).read_bytes().removesuffix(b"\n")))
    return [Volume(path.name, workspace, path) for path in folder.iterdir() if VOLUME_NAME.fullmatch(path.name)]
