"""What of a workspace or a mount a run does not see: patterns as in .gitignore, read and matched. Text only.

    node_modules    that name, at any depth        build/       a folder of that name, not a file
    /dist           only at the top                config/*.key    a slash inside: from the top too
    **/cache/*.db   any depth, said with a slash   secrets/**   all that is in the folder secrets at the top

`*` and `?` match within a name, `[abc]` and `[!abc]` one character of it. Nothing is taken back: `!` is refused.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ANY_DEPTH = "**"


@dataclass(frozen=True, slots=True)
class Exclude:
    """One pattern. segments: None stands for any number of folders. is_for_folders: it fits nothing else."""

    text: str
    segments: tuple[re.Pattern[str] | None, ...]
    is_for_folders: bool

    def fits(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        """Whether the pattern names the path of these parts itself; not so for what lies in a folder that it names."""
        return (is_folder or not self.is_for_folders) and _fits(self.segments, parts)


def parse_exclude(text: str) -> Exclude:
    """Return the pattern that text is. Raises ValueError for what would not do what it seems to say."""
    body = text.removesuffix("/**") if text.endswith("/**") else text.removesuffix("/")
    names = body.removeprefix("/").split("/")
    if text.startswith("!") or "\\" in text:
        raise ValueError("begins with ! or has a \\, which mean nothing here")
    if any(name in ("", ".", "..") for name in names) or set(names) == {_ANY_DEPTH}:
        raise ValueError("names no path below the folder: write node_modules, /dist or secrets/**")
    if "/" not in body:
        names = [_ANY_DEPTH, *names]
    segments = tuple(None if name == _ANY_DEPTH else re.compile(fnmatch.translate(name)) for name in names)
    return Exclude(text, segments, is_for_folders=body != text)


def is_hidden(excludes: Iterable[Exclude], parts: Sequence[str], *, is_folder: bool) -> bool:
    """Whether a path, or a folder that it lies in, is named by any of excludes."""
    whole = len(parts)
    return any(
        exclude.fits(parts[:end], is_folder=is_folder or end < whole)
        for exclude in excludes
        for end in range(1, whole + 1)
    )


def _fits(segments: Sequence[re.Pattern[str] | None], parts: Sequence[str]) -> bool:
    """Match from the left; on a mismatch let the last `**` take one folder more. No input takes long."""
    at, part, last, resume = 0, 0, -1, 0
    while part < len(parts):
        has_more = at < len(segments)
        segment = segments[at] if has_more else None
        if has_more and segment is None:
            last, resume = at, part
            at += 1
        elif segment is not None and segment.match(parts[part]):
            at, part = at + 1, part + 1
        elif last >= 0:
            resume += 1
            at, part = last + 1, resume
        else:
            return False
    return at == len(segments)
