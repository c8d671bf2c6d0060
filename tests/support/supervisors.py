"""Finds the processes that hold detached runs."""

from __future__ import annotations

import os
from pathlib import Path


def supervisor_of(name: str) -> int:
    """Return the process that holds a run: a copy of its command line that leads a session of its own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = read(entry / "cmdline")
            if b"--name\0" + name.encode() in words and os.getsid(int(entry.name)) == int(entry.name):
                return int(entry.name)
    raise AssertionError(f"{name} has no supervisor")


def read(path: Path) -> bytes:
    """Return a file of /proc, or nothing when its process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
