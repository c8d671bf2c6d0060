"""Has a daemon there as long as a run lives: when it dies, its successor takes the run over, if it comes soon enough.

daemon lives ─▶ its process ends ─▶ run ended with it? ─ yes ─▶ done
                                            └ no ─▶ ensure_running: the gate comes back to its door within 30 s
"""

from __future__ import annotations

import asyncio
import logging

from moat.api.errors import DaemonError, RunNotFound
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.liveness import process_end
from moat.paths import Home
from moat.trace.store import LIVE_STATES, RunStore

RETRY_S = 1.0

log = logging.getLogger(__name__)


async def keep_daemon(home: Home, run_id: str) -> None:
    """Start another daemon whenever the daemon dies under a live run. Ends when the run was ended on purpose."""
    while True:
        try:
            health = await asyncio.to_thread(DaemonClient(home).health)
        except DaemonError:
            if not is_live(home, run_id):
                return
            await _revived(home)
        else:
            await process_end(str(health.pid))


async def _revived(home: Home) -> None:
    try:
        await asyncio.to_thread(ensure_running, home)
    except DaemonError as failure:  # the gate gives up by itself in the end, and says so
        log.warning("the daemon could not be started again", extra={"problem": failure.problem})
        await asyncio.sleep(RETRY_S)


def is_live(home: Home, run_id: str) -> bool:
    """Return whether a run is not over, as far as is written down."""
    try:
        return RunStore(home).read(run_id).state in LIVE_STATES
    except RunNotFound:
        return False
