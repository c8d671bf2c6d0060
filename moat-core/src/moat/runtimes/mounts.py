"""Refuses mounts that would let a run reach what it must not: sockets of the host, moat's own folder, the kernel's.

Looks at the file system, changes nothing. Shared by the runtimes that mount host paths.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath

from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.paths import Home

# Never shown, not as a whole and not in part; a mount that contains one is as bad as one that is in it.
PROTECTED_SOURCES = ("/proc", "/sys", "/dev", "/boot", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers",
                     "/etc/shadow", "/etc/sudoers", "/etc/ssh")  # fmt: skip
# Inside, these are ours: what they hold decides where a run connects and whom it trusts.
PROTECTED_TARGETS = ("/proc", "/sys", "/dev", "/etc/moat", "/etc/ssl", "/etc/hosts", "/etc/resolv.conf",
                     "/etc/nsswitch.conf", "/etc/hostname", "/etc/passwd", "/etc/group")  # fmt: skip


def check_mounts(mounts: Iterable[Mount], *, home: Path, ours: Path, allow_sockets: bool) -> None:
    """Raise SandboxFailed for the first mount that must not be. Symlinks are followed before anything is compared.

    home: MOAT_HOME. ours: the folder in it that holds this run's own files, whose mounts are not the user's.
    """
    own, kept = ours.resolve(), Home(home).volumes.resolve()
    for mount in mounts:
        source = _real(mount.source)
        if source.is_relative_to(own):
            continue
        _check_source(mount.source, source, home)
        _check_target(mount.target)
        if source.is_relative_to(kept):  # nobody but runs of its workspace can listen at sockets there
            continue
        if not allow_sockets and (found := next(sockets_in(source), None)) is not None:
            raise SandboxFailed(
                f"{mount.source} holds the socket {found}: a run could talk to the host through it",
                hint="remove it if it is stale, mount another folder, or say --allow-socket",
            )


def sockets_in(path: Path) -> Iterator[Path]:
    """Yield the unix sockets at or under path, without following symlinks and without what we may not read."""
    if stat.S_ISSOCK(path.stat().st_mode):
        yield path
    folders = [str(path)] if path.is_dir() else []
    while folders:
        try:
            entries = os.scandir(folders.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink() and _is_socket(entry):
                    yield Path(entry.path)


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return False


def _check_source(named: Path, source: Path, home: Path) -> None:
    if overlaps(source, home.resolve()):
        raise SandboxFailed(
            f"{named} and moat's own folder {home} overlap: a run would see what moat keeps",
            hint="run moat in a project's folder, or move MOAT_HOME",
        )
    for protected in PROTECTED_SOURCES:
        if overlaps(source, Path(protected)):
            raise SandboxFailed(
                f"{named} cannot be mounted: it is, holds or lies in {protected}", hint="mount a folder"
            )


def _check_target(target: str) -> None:
    path = PurePosixPath(target)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise SandboxFailed(f"{target!r} is no place for a mount", hint="use an absolute path, for example /data")
    for protected in PROTECTED_TARGETS:
        if overlaps(path, PurePosixPath(protected)):
            raise SandboxFailed(f"nothing can be mounted at {target}: {protected} is moat's", hint="use another path")


def overlaps(one: PurePath, other: PurePath) -> bool:
    """Whether one path is, contains or lies in the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _real(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise SandboxFailed(
            f"{path} cannot be mounted: there is nothing", hint="make it first, or mount another"
        ) from None
