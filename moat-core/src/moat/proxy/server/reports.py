"""What the worker tells the daemon: exchanges in batches, since a frame for each costs more than the exchange's TLS.

exchange ─▶ quiet before: told at once │ else it waits with others, FLUSH_S at most ─▶ one frame a run
send ─▶ what waits, then the message: a Pong comes after every exchange that ended before it

What is plain waits as facts, not as text: lines are made of a whole batch at once, and what all of them begin with is
said once. The daemon gets sums beside them, and need not read them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.counts import Counts
from moat.proxy.messages import MARK, Exchanges, ToDaemon, encode
from moat.proxy.record import FACTS, Facts, endings_of, line_of, lines_of

FLUSH_S = 0.1  # what a crash of a busy worker may lose; the daemon writes once a second
BATCH = 1024  # half a millisecond of work, 100 KiB on the way and 600 in the trace
BATCH_CHARS = 1_048_576  # with headers and bodies in them: a frame has a limit
_MARK = MARK.decode()


@dataclass(slots=True)
class _Batch:
    """What waits of one run: whole lines, and then Facts, one after the other."""

    counts: Counts = field(default_factory=Counts)
    lines: list[str] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)

    def told(self, run_id: str) -> Exchanges:
        """Return all of it."""
        if not self.lines and len(set(self.facts[::FACTS])) == 1:
            self._count()
            text = endings_of(self.facts, _MARK).encode()
            return Exchanges(run_id, self.counts, text, self.facts[0].beginning)
        self.settle()
        return Exchanges(run_id, self.counts, "".join(self.lines).encode())

    def settle(self) -> None:
        """Make lines of the facts, for others to come after them."""
        if self.facts:
            self._count()
            self.lines.append(lines_of(self.facts))
            self.facts = []

    def _count(self) -> None:
        self.counts.forwarded(Counter(self.facts[::FACTS]), self.facts[3::FACTS])


class Reports:
    """The worker's end of its channel, for sending."""

    def __init__(self, channel: FrameChannel) -> None:
        self._channel = channel
        self._waiting: dict[str, _Batch] = {}
        self._count = self._chars = 0
        self._pause: asyncio.TimerHandle | None = None

    def exchange(self, record: ExchangeRecord) -> None:
        """Report one finished exchange, soon."""
        line = line_of(record)
        batch = self._batch(record.run_id)
        batch.settle()
        batch.lines.append(f"{line}\n")
        batch.counts.record(record)
        self._count += 1
        self._chars += len(line)
        if self._pause is None or self._count >= BATCH or self._chars >= BATCH_CHARS:
            self._enough()

    def forwarded(self, run_id: str, facts: Facts) -> None:
        """Report one that was forwarded, and is like others but for its facts."""
        batch = self._waiting.get(run_id)
        if batch is None:
            batch = self._batch(run_id)
        batch.facts.extend(facts)
        self._count += 1
        self._chars += len(facts[0].beginning)
        if self._pause is None or self._count >= BATCH or self._chars >= BATCH_CHARS:
            self._enough()

    def send(self, message: ToDaemon) -> None:
        """Send a message now, after every exchange before it."""
        self.flush()
        self._channel.send(encode(message))

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._count, self._chars = self._waiting, {}, 0, 0
        for run_id, batch in waiting.items():
            self._channel.send(encode(batch.told(run_id)))

    def _batch(self, run_id: str) -> _Batch:
        batch = self._waiting.get(run_id)
        if batch is None:
            batch = self._waiting[run_id] = _Batch()
        return batch

    def _enough(self) -> None:
        if self._pause is None:
            self._flush_and_pause()
        else:
            self.flush()

    def _flush_and_pause(self) -> None:
        """Send what waits, and let what comes in the next moments wait; if nothing came, the next is told at once."""
        self._pause = None
        if self._waiting:
            self.flush()
            self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_and_pause)
