"""What the worker reports, on its way to disk and observers: counters, network.jsonl, names.json, hooks.

A report for a run that is not live is dropped: the worker parses hostile bytes, so its word opens no folder.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import Protocol

from moat.api.http import Authority
from moat.api.runs import ExchangeRecord
from moat.daemon.registry import Registry
from moat.paths import UNWRITABLE
from moat.proxy.counts import Counts
from moat.proxy.messages import Exchanges
from moat.proxy.record import record_of
from moat.trace.network import FLUSH_EVERY_S, NetworkLog
from moat.trace.store import RunStore

_DENIED = b'"outcome":"denied"'
_REJECTED = 401  # of interest to whoever renews credentials, whether plugins watch or not
COUNTS_EVERY = 10  # flushes: what a kill may take from a run's counters is ten seconds
_SHOWN_BYTES = 1_000  # of what is nobody's, in the log

log = logging.getLogger(__name__)


class ExchangeObserver(Protocol):
    """Who watches exchanges: the plugins. Never raises."""

    @property
    def watches_exchanges(self) -> bool:
        """Whether anybody does."""
        ...

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Take one exchange."""
        ...


class Denials(Protocol):
    """Who is told what was not let out: the audit."""

    def denied(self, run_id: str, authority: str, why: str) -> None:
        """Take one denial."""
        ...


class Records:
    """The worker's observer in the daemon."""

    def __init__(
        self, registry: Registry, store: RunStore, network: NetworkLog, plugins: ExchangeObserver,
        denials: Denials | None = None,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._store = store
        self._network = network
        self._plugins = plugins
        self.denials = denials
        self._names: dict[str, dict[str, str]] = {}
        self.tally = Counts()
        self._files: dict[str, Path] = {}  # of live runs: making one costs as much as all that is done with it

    @property
    def lost(self) -> int:
        """How many exchanges no trace has, since a disk was full."""
        return self._network.lost

    def exchanges(self, report: Exchanges) -> None:
        """Count, remember and pass on finished exchanges of one run."""
        run_id, counts, lines = report.run_id, report.counts, report.lines
        if not self._registry.count(run_id, counts.requests, denied=counts.denied):
            log.info("exchanges of no live run", extra={"first": lines[:_SHOWN_BYTES].decode(errors="replace")})
            return
        file = self._files.get(run_id) or self._files.setdefault(run_id, self._store.network(run_id))
        self._network.append(file, lines)
        self.tally.add(counts)
        if counts.denied and self.denials is not None:
            for line in lines.splitlines():
                if _DENIED in line:
                    record = record_of(line)
                    self.denials.denied(run_id, authority_of(record), record.reason)
        if self._plugins.watches_exchanges or counts.statuses[_REJECTED]:
            for line in lines.splitlines():
                self._plugins.exchange_done(run_id, record_of(line))

    def named(self, run_id: str, name: str, address: str) -> None:
        """Keep the address that a name was given, with the next flush."""
        if self._registry.get(run_id) is not None:
            self._names.setdefault(run_id, self._store.read_names(run_id))[name] = address

    def flush(self) -> None:
        """Write everything that is remembered."""
        self._network.flush()
        for run_id in tuple(self._names):
            self._write_names(run_id)

    def close(self, run_id: str) -> None:
        """Write what is left of one run."""
        self._files.pop(run_id, None)
        self._network.close(self._store.network(run_id))
        self._write_names(run_id)

    async def flush_forever(self) -> None:
        """Flush every second, and have counters written down now and then, until cancelled."""
        for number in itertools.count(1):
            await asyncio.sleep(FLUSH_EVERY_S)
            self.flush()
            if number % COUNTS_EVERY == 0:
                self._registry.tell_counts()

    def _write_names(self, run_id: str) -> None:
        if (names := self._names.pop(run_id, None)) is None:
            return
        try:
            self._store.write_names(run_id, names)
        except UNWRITABLE as failure:
            log.warning("names could not be written", extra={"run_id": run_id, "problem": str(failure)})


def authority_of(record: ExchangeRecord) -> str:
    """Return whom a request was for, as the audit calls it."""
    return f"{record.scheme}://{Authority(record.scheme, record.host, record.port)}"
