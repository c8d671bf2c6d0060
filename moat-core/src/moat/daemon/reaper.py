"""Finds the runtime that a lost run was in, and lets it remove what is left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from moat.api.runtimes import Runtime

log = logging.getLogger(__name__)


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
