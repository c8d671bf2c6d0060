"""Finds a group's entry points by looking at the files, as importlib.metadata would, in a tenth of its time.

Its import and its scan of every distribution cost `moat run` more than click. Only what pip and uv install is
understood here, folders named `*.dist-info` on sys.path; anything else that may name the group gives None, and
importlib.metadata is asked.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from typing import NamedTuple

_VALUE = re.compile(r"(?P<module>[\w.]+)\s*(?::\s*(?P<attribute>[\w.]+)\s*)?")
_INFO = (".dist-info", "egg-info")  # the second is setuptools' old way, "EGG-INFO" in an egg


class Entry(NamedTuple):
    """One entry point, with the distribution that has it. value: module, or module:attribute."""

    name: str
    value: str
    distribution: str
    version: str

    def load(self) -> object:
        """Import it. Raises whatever that raises."""
        parts = _VALUE.fullmatch(self.value)
        if parts is None:
            raise ImportError(f"{self.value!r} names nothing")
        found: object = importlib.import_module(parts["module"])
        for attribute in filter(None, (parts["attribute"] or "").split(".")):
            found = getattr(found, attribute)
        return found


class _Unusual(Exception):
    """Only importlib.metadata knows."""


def scan(group: str, path: Sequence[str] | None = None, finders: Iterable[object] | None = None) -> list[Entry] | None:
    """Return the entry points of group on path (sys.path), None when it takes importlib.metadata to tell."""
    finding = [each for each in (sys.meta_path if finders is None else finders) if hasattr(each, "find_distributions")]
    if not finding or any(each is not PathFinder and not _is_backport(each) for each in finding):
        return None
    found: list[Entry] = []
    seen: set[str] = set()
    try:
        for folder, name in _infos(sys.path if path is None else path):
            key = re.sub(r"[-_.]+", "_", name.rpartition(".")[0].partition("-")[0]).lower()
            if key not in seen:  # the first on the path hides the others, whether it offers anything or not
                seen.add(key)
                found += _entries(os.path.join(folder, name), group)  # noqa: PTH118 # a hundred of them a start
    except (_Unusual, OSError, UnicodeDecodeError):
        return None
    return found


def _is_backport(finder: object) -> bool:
    """Whether a finder is that of the importlib_metadata of PyPI, which takes PathFinder's place and finds the same."""
    return type(finder).__module__.partition(".")[0] == "importlib_metadata"


def _infos(path: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield folder and name of what is kept of each distribution. Raises _Unusual for an archive on path."""
    for folder in path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 # as above
        except NotADirectoryError:
            raise _Unusual from None  # an archive
        except OSError:
            continue
        for name in names:
            if name.lower().endswith(_INFO):
                yield folder or ".", name


def _entries(info: str, group: str) -> list[Entry]:
    text = _read(f"{info}/entry_points.txt")
    if text is None or group not in text:
        return []
    pairs = list(_pairs(text, group))
    if not pairs:
        return []
    if not info.endswith(".dist-info"):
        raise _Unusual
    about = _read(f"{info}/METADATA") or ""
    name, version = (re.search(rf"^{field}:[ \t]*(\S+)[ \t]*$", about.partition("\n\n")[0], re.M)
                     for field in ("Name", "Version"))  # fmt: skip
    if name is None or version is None:
        raise _Unusual
    return [Entry(key, value, name[1], version[1]) for key, value in pairs]


def _pairs(text: str, group: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == group and line and not line.startswith("#"):
            name, _, value = (part.strip() for part in line.partition("="))
            if _VALUE.fullmatch(value) is None:
                raise _Unusual  # extras, or nonsense
            yield name, value


def _read(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123 # as above
            return opened.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
