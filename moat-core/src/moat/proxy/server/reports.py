"""What the worker tells the daemon: exchanges in batches, since a frame for each costs more than the exchange's TLS.

exchange ─▶ quiet before: told at once │ else it waits with others, FLUSH_S at most ─▶ one frame a run
send ─▶ what waits, then the message: a Pong comes after every exchange that ended before it
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.messages import Exchanges, ToDaemon, encode
from moat.proxy.record import line_of

FLUSH_S = 0.05  # what a crash of a busy worker may lose; the daemon writes once a second
BATCH = 256  # some 150 KiB
BATCH_CHARS = 1_048_576  # with headers and bodies in them: a frame has a limit


@dataclass(slots=True)
class _Batch:
    """What waits of one run."""

    lines: list[str] = field(default_factory=list)
    denied: int = 0


class Reports:
    """The worker's end of its channel, for sending."""

    def __init__(self, channel: FrameChannel) -> None:
        self._channel = channel
        self._waiting: dict[str, _Batch] = {}
        self._count = self._chars = 0
        self._pause: asyncio.TimerHandle | None = None

    def exchange(self, record: ExchangeRecord) -> None:
        """Report one finished exchange, soon."""
        self.line(record.run_id, line_of(record), is_denied=record.outcome == "denied")

    def line(self, run_id: str, line: str, *, is_denied: bool = False) -> None:
        """Report one that is a line already."""
        batch = self._waiting.get(run_id)
        if batch is None:
            batch = self._waiting[run_id] = _Batch()
        batch.lines.append(line)
        batch.denied += is_denied
        self._count += 1
        self._chars += len(line)
        if self._pause is None:
            self._flush_and_pause()
        elif self._count >= BATCH or self._chars >= BATCH_CHARS:
            self.flush()

    def send(self, message: ToDaemon) -> None:
        """Send a message now, after every exchange before it."""
        self.flush()
        self._channel.send(encode(message))

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._count, self._chars = self._waiting, {}, 0, 0
        for run_id, batch in waiting.items():
            text = "\n".join([*batch.lines, ""]).encode()
            self._channel.send(encode(Exchanges(run_id, len(batch.lines), batch.denied, text)))

    def _flush_and_pause(self) -> None:
        """Send what waits, and let what comes in the next moments wait; if nothing came, the next is told at once."""
        self._pause = None
        if self._waiting:
            self.flush()
            self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_and_pause)
