"""Keeps snapshots of a workspace while a run works in it, whenever something has changed.

A snapshot that cannot be taken costs the run nothing: it is logged, and the next one is tried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from moat.api.errors import MoatError
from moat.paths import Home
from moat.runs.snapshots import Snapshots

log = logging.getLogger(__name__)


async def keep_snapshots(
    home: Home, workspace: Path, run: str, every_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Look every so many seconds, until cancelled. run: its name, for the list of snapshots."""
    while True:
        await sleep(every_s)
        try:
            await asyncio.to_thread(lambda: Snapshots(home, workspace).create_if_changed(f"during {run}"))
        except (MoatError, OSError) as failure:
            log.warning("no snapshot", extra={"run": run, "problem": str(failure)})
