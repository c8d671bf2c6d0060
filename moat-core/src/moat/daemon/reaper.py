"""Finds the runtime that a run is in, asks it whether the run exists, and lets it remove what a lost one left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from moat.api.runtimes import Runtime
from moat.paths import Home, remove_tree

log = logging.getLogger(__name__)


def remove_files(home: Home, run_id: str) -> None:
    """Remove what a launcher that was killed would have removed: the files that its run saw, and its own socket."""
    with contextlib.suppress(OSError):
        remove_tree(home.inside(run_id))
    with contextlib.suppress(OSError):
        home.control(run_id).unlink()


class RuntimeSource(Protocol):
    """Who knows the runtimes: the plugins."""

    def runtimes(self) -> Sequence[Runtime]:
        """Return every runtime. Raises PluginError."""
        ...


class RuntimeReaper:
    """Reaps by the runtime's name."""

    def __init__(self, plugins: RuntimeSource) -> None:
        self._plugins = plugins

    async def reap(self, runtime: str, run_id: str) -> None:
        """Remove what a run left; one of an unknown runtime is only logged."""
        found = {each.name: each for each in self._plugins.runtimes()}
        if runtime in found:
            await found[runtime].reap(run_id)
        elif runtime:
            log.warning("a lost run's runtime is not installed", extra={"run_id": run_id, "runtime": runtime})

    async def pulse(self, runtime: str, run_id: str) -> bool | None:
        """Return whether a run's sandbox exists; a runtime that is not installed cannot tell.

        A run of no runtime, registered by another tool, is over when its process is.
        """
        if not runtime:
            return True
        found = {each.name: each for each in self._plugins.runtimes()}
        return await found[runtime].pulse(run_id) if runtime in found else None
