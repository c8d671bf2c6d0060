"""Looking for secrets: the environment, every process, and every file that was written since the secrets exist.

What is looked for comes reversed, so that this program's own files and memory do not count as finds.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hostile.inside.attempt import Outcomes

SKIPPED = ("/proc", "/sys", "/dev")
LARGEST = 64 * 1024 * 1024
TOKEN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
MAY_HOLD_A_TOKEN = ("/environ", "/cmdline")  # other files name containers, with as many hex digits
OF_A_PROCESS = ("environ", "cmdline", "maps", "mountinfo", "status", "limits", "cgroup", "comm", "stat", "wchan")


def everything(reversed_marks: list[str], since: float, own: str) -> dict[str, Outcomes]:
    """Return where each mark was found. since: time before which nothing secret existed. own: this program's folder."""
    marks = [mark[::-1].encode() for mark in reversed_marks]
    found: Outcomes = {}
    tokens: Outcomes = {}
    count = 0
    for place, data in (*_environment(), *_processes(), *_files(since, own)):
        count += 1
        for position, mark in enumerate(marks):
            if mark in data:
                found[f"{place} mark {position}"] = "done"
        could = place.endswith(MAY_HOLD_A_TOKEN) or place.startswith(("environment", "/etc", "/home"))
        if could and TOKEN.search(data):
            tokens[place] = "done"
    return {"secrets": found, "tokens": tokens, "looked_at": {"places": str(count)}}


def _environment() -> Iterator[tuple[str, bytes]]:
    for name, value in os.environb.items():
        yield f"environment {name.decode()}", value


def _processes() -> Iterator[tuple[str, bytes]]:
    for folder in (*Path("/proc").glob("[0-9]*"), Path("/proc/self")):
        for name in OF_A_PROCESS:
            yield from _read(folder / name)
    for path in Path("/proc/self/net").glob("*"):
        yield from _read(path)
    for name in ("keys", "key-users", "mounts", "cmdline", "locks"):
        yield from _read(Path("/proc", name))


def _files(since: float, own: str) -> Iterator[tuple[str, bytes]]:
    for folder, folders, names in os.walk("/"):
        if folder in SKIPPED or folder.startswith(own):
            folders.clear()
            continue
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_ctime >= since and status.st_size < LARGEST:
                    yield from _read(path)


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    with contextlib.suppress(OSError):
        yield str(path), path.read_bytes()
