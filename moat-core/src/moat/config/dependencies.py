"""What `dependencies` of moat.yaml may say: one thing to be installed in the image, with its version. Pure.

    node@22 · python@3.12 · go@1.23 · rust      a language; without a version, whichever there is
    apt:ripgrep · apt:ripgrep=13.0.0-4          a package of the image's distribution
    pip:ruff==0.6 · pip:httpx[http2]>=0.27      as pip writes it
    npm:typescript@5 · npm:@scope/name@~1.2     as npm writes it

Names and versions only: no URL, path or option, nothing that begins with a dash. An entry is what it looks like.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

LANGUAGES = ("go", "node", "python", "rust")
SOURCES = ("apt", "npm", "pip")
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,2}")
_PIP_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?(?:\[[A-Za-z0-9._-]+(?:,[A-Za-z0-9._-]+)*\])?"
_PIP_VERSION = r"(?:==|>=|<=|~=|!=|<|>)[0-9A-Za-z][0-9A-Za-z.*+!_-]{0,63}"
_PATTERNS = {  # name, then version with what stands before it
    "apt": re.compile(r"([a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+])(=[0-9A-Za-z][0-9A-Za-z.+:~-]{0,127})?"),
    "npm": re.compile(
        r"((?:@[a-z0-9][a-z0-9._-]{0,98}/)?[a-z0-9][a-z0-9._-]{0,98})(@[\^~]?[0-9A-Za-z][0-9A-Za-z.+_-]{0,63})?"
    ),
    "pip": re.compile(rf"({_PIP_NAME})({_PIP_VERSION}(?:,{_PIP_VERSION}){{0,3}})?"),
}
_EXAMPLES = {"apt": "apt:ripgrep", "npm": "npm:typescript@5", "pip": "pip:ruff==0.6"}


@dataclass(frozen=True, slots=True, order=True)
class Dependency:
    """One thing to be installed. kind: one of LANGUAGES or SOURCES. name: "" for a language.

    version: as it is written after the name (`==0.6`, `@5`, `=13.0.0-4`); of a language only the number; "" for any.
    """

    kind: str
    name: str
    version: str

    @property
    def package(self) -> str:
        """What the package manager is told."""
        return f"{self.name}{self.version}"

    def __str__(self) -> str:
        if self.kind in LANGUAGES:
            return f"{self.kind}@{self.version}" if self.version else self.kind
        return f"{self.kind}:{self.package}"


def parse_dependency(text: str) -> Dependency:
    """Return what text asks for. Raises ValueError, saying how it is written; never repeats the text."""
    source, colon, rest = text.partition(":")
    if colon:
        if source not in SOURCES:
            raise ValueError("before the colon stands apt, npm or pip")
        match = _PATTERNS[source].fullmatch(rest)
        if match is None:
            raise ValueError(f"write it like {_EXAMPLES[source]}: a name and a version, no URL, path or option")
        return Dependency(source, match[1], match[2] or "")
    language, at, version = text.partition("@")
    if language not in LANGUAGES:
        raise ValueError(_unknown(language))
    if at and _VERSION.fullmatch(version) is None:
        raise ValueError(f"write a version like {language}@3 or {language}@1.23")
    return Dependency(language, "", version)


def checked_dependencies(texts: Iterable[str]) -> tuple[Dependency, ...]:
    """Return what texts ask for, each once, in an order that does not depend on theirs. Raises ValueError."""
    found = sorted({parse_dependency(text) for text in texts})
    for before, after in pairwise(found):
        if (before.kind, before.name) == (after.kind, after.name):
            raise ValueError(f"{before} and {after} are two versions of one thing")
    return tuple(found)


def _unknown(language: str) -> str:
    near = difflib.get_close_matches(language, LANGUAGES, n=1)
    known = (
        f"did you mean {near[0]}?" if near else f"languages are {', '.join(LANGUAGES)}; packages apt:…, npm:…, pip:…"
    )
    return f"no language is called that; {known}"
