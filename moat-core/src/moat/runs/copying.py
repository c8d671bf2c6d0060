"""Copies a folder with `cp`, which shares blocks where the file system can; some paths below it can be left out.

Of folders that hold something to be left out, each entry is copied by itself, from a folder that is held open: no link
that appears on the way is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from moat.runs.hidden import open_below

_COPY = ("cp", "-a", "--reflink=auto")
_AT_ONCE = 500  # names in one command line: at 255 bytes each far below the kernel's 2 MiB


class NotCopied(Exception):
    """It could not be done; says why."""


async def copy_tree(source: Path, target: Path, left_out: Sequence[str] = ()) -> None:
    """Copy what is in source into target, an empty folder. left_out: paths below source. Raises NotCopied."""
    if not left_out:
        await _copied("--", f"{source}/.", str(target))
        return
    without = {*map(PurePosixPath, left_out)}
    without = {path for path in without if without.isdisjoint(path.parents)}
    split = sorted({up for path in without for up in path.parents if up.parts})
    folders = [PurePosixPath(), *split]  # parents before what is in them
    apart = without.union(split)
    try:
        for folder in folders:
            (target / folder).mkdir(exist_ok=True)
            await _copy_entries(source, target / folder, folder, apart)
        for folder in reversed(folders):
            _like(source / folder, target / folder)
    except OSError as failure:
        raise NotCopied(f"{failure.filename or source}: {os.strerror(failure.errno or 0)}") from None


async def _copy_entries(source: Path, target: Path, folder: PurePosixPath, apart: set[PurePosixPath]) -> None:
    """Copy what lies in a folder of source, but for what is left out or copied apart."""
    held = open_below(source, folder.parts)
    try:
        names = [name for name in sorted(os.listdir(held)) if folder / name not in apart]  # noqa: PTH208 # no path
        for some in _portions(names):
            await _copied(f"--target-directory={target}", "--", *some, folder=held)
    finally:
        os.close(held)


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), _AT_ONCE):
        yield names[begin : begin + _AT_ONCE]


def _like(source: Path, target: Path) -> None:
    """Give a folder the owner, mode and times of another."""
    status = source.stat()
    with contextlib.suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


async def _copied(*words: str, folder: int | None = None) -> None:
    place = None if folder is None else f"/proc/self/fd/{folder}"
    process = await asyncio.create_subprocess_exec(*_COPY, *words, cwd=place, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise NotCopied((said.decode(errors="replace").strip().splitlines() or ["cp did not say why"])[0])
