"""What the daemon is made of, as values that the composition root fills in and hands down. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moat.api.runs import RunInfo
from moat.daemon.auditor import Auditor
from moat.daemon.grants import Grants
from moat.daemon.guesses import GuessLog
from moat.daemon.ledger import Ledger
from moat.daemon.records import Records
from moat.daemon.registry import Registry
from moat.daemon.upstream import Installation
from moat.daemon.worker import Worker
from moat.paths import Home
from moat.trace.store import RunStore


class Observers(Protocol):
    """Who is told about runs: the plugins. Never raises."""

    def run_started(self, run: RunInfo) -> None:
        """Take a run whose command may start now."""
        ...

    def run_stopped(self, run: RunInfo, exit_code: int) -> object:
        """Take a run that is over."""
        ...


class Reaper(Protocol):
    """Who removes what a lost run left: the runtimes."""

    async def reap(self, runtime: str, run_id: str) -> None:
        """Remove containers and the like of one run."""
        ...

    async def pulse(self, runtime: str, run_id: str) -> bool | None:
        """Return whether a run's sandbox exists; None when that cannot be told now."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What Runs is made of; the composition root makes them."""

    home: Home
    installation: Installation
    registry: Registry
    grants: Grants
    worker: Worker
    records: Records
    store: RunStore
    observers: Observers
    reaper: Reaper
    proxy_port: int
    ledger: Ledger
    auditor: Auditor
    guesses: GuessLog
