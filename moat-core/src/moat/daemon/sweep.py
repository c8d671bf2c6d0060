"""What a daemon that died left behind, put in order before its successor serves. Nothing is left for the user."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

from moat.api.runs import RunInfo
from moat.daemon.registration import now
from moat.paths import Home
from moat.trace.store import LIVE_STATES, RunStore

log = logging.getLogger(__name__)


def sweep(home: Home, store: RunStore) -> list[RunInfo]:
    """Set broken records aside, mark the dead daemon's runs as lost, remove their doors; return the lost runs.

    Only the lock's holder may call it. The doors are shut anyway: who listened on them is gone.
    """
    store.set_aside_broken()
    lost: list[RunInfo] = []
    for info in store.list():
        if info.state in LIVE_STATES:
            lost.append(replace(info, state="lost", ended_at=now()))
            store.write(lost[-1])
            log.warning("a run was lost with the daemon before this one", extra={"run_id": info.run_id})
    shutil.rmtree(home.root / "doors", ignore_errors=True)
    return lost
