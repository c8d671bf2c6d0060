"""Looks for the tests' secrets in what moat wrote: as they are, and in the codings in which one hides from a grep."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

MARK = b"s3cr3t"  # every secret in the tests contains it


def _forms() -> tuple[bytes, ...]:
    """Return what a file holds that holds the mark: plain, hex, and base64 at each of its three offsets."""
    coded = []
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + MARK + b"\0" * 3)
        coded.append(text[(0, 2, 3)[offset] : (len(MARK) + offset) * 8 // 6])  # what depends on the mark alone
    return (MARK, MARK.hex().encode(), *coded)


FORMS = _forms()


def leaks_below(folder: Path) -> Iterator[str]:
    """Yield a complaint for every file below folder that holds a secret."""
    for path in _files_below(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # a daemon that lives writes drafts, and renames them
            continue
        if any(form in data for form in FORMS):
            yield f"a secret stands in {path}"


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield plain files. Not by rglob, which fails when a folder goes while it is read."""
    for top, _, names in os.walk(folder):
        for path in (Path(top) / name for name in names):
            if path.is_file() and not path.is_symlink():
                yield path


def homes_below(folder: Path) -> Iterator[Path]:
    """Yield every folder in which a daemon, or a run, has written something of moat's own."""
    found = {mark.parent.parent for mark in folder.rglob("daemon/daemon.log")}
    found |= {mark.parent for mark in folder.rglob("runs/run_*/run.json")}
    yield from sorted(found)
