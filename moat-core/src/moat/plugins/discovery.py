"""Finds the installed plugins: entry points of the group `moat`, and which distribution each came in. Imports none.

And the pure functions of theirs that rules name, group `moat.rewriters`: those are imported by the proxy, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any

from moat.api.errors import PluginError
from moat.api.light import dataclass
from moat.plugins.scan import Entry, scan

if TYPE_CHECKING:
    from importlib import metadata

GROUP = "moat"
REWRITERS = "moat.rewriters"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry point, not yet imported. load: imports it and returns what it names; raises whatever that raises."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object] = field(repr=False)

    @property
    def title(self) -> str:
        """How problems name it."""
        return f"{self.distribution} ({self.name})"


def installed() -> list[Candidate]:
    """Return every installed plugin, by distribution and name."""
    if (found := scan(GROUP)) is not None:
        return candidates(found)
    from importlib import metadata

    return candidates(metadata.entry_points(group=GROUP))


def candidates(entry_points: Iterable[metadata.EntryPoint | Entry]) -> list[Candidate]:
    """Return what these entry points offer. One listed twice (an editable install over a wheel) counts once."""
    found: dict[tuple[str, str, str], Candidate] = {}
    for entry in entry_points:
        distribution, version = _origin(entry)
        found.setdefault(
            (distribution, entry.name, entry.value), Candidate(entry.name, distribution, version, entry.load)
        )
    return [found[key] for key in sorted(found)]


def normalized(name: str) -> str:
    """Return a distribution's name as indexes of packages compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def rewriter(name: str) -> Callable[..., Any]:
    """Import and return the function that a `Rewriter` names. Raises PluginError, and what importing raises."""
    found = rewriter_candidate(name)
    function = found.load()
    if not callable(function):
        raise PluginError(f"the rewriter {name!r} of {found.distribution} is no function", hint="run: moat plugins")
    return function


def rewriter_candidate(name: str) -> Candidate:
    """Return the entry point of a rewriter, not imported. Raises PluginError for none, or for one of two owners."""
    from importlib import metadata

    found = candidates(metadata.entry_points(group=REWRITERS, name=name))
    if len({each.distribution for each in found}) != 1:
        owners = " and ".join(each.distribution for each in found) or "nobody"
        raise PluginError(f"the rewriter {name!r} is claimed by {owners}", hint="run: moat plugins")
    return found[0]


def _origin(entry: metadata.EntryPoint | Entry) -> tuple[str, str]:
    if isinstance(entry, Entry):
        return entry.distribution, entry.version
    if entry.dist is None:
        return "an unknown distribution", ""
    return entry.dist.name, entry.dist.version
