"""What the worker tells the daemon: exchanges in batches, since a frame for each costs more than the exchange's TLS.

exchange ─▶ quiet before: told at once │ else it waits with others, FLUSH_S at most ─▶ one frame
send ─▶ what waits, then the message: a Pong comes after every exchange that ended before it
"""

from __future__ import annotations

import asyncio

from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.messages import Exchanges, ToDaemon, encode

FLUSH_S = 0.05  # what a crash of a busy worker may lose; the daemon writes once a second
BATCH = 256  # some 50 KiB


class Reports:
    """The worker's end of its channel, for sending."""

    def __init__(self, channel: FrameChannel) -> None:
        self._channel = channel
        self._waiting: list[ExchangeRecord] = []
        self._pause: asyncio.TimerHandle | None = None

    def exchange(self, record: ExchangeRecord) -> None:
        """Report one finished exchange, soon."""
        self._waiting.append(record)
        if self._pause is None:
            self._flush_and_pause()
        elif len(self._waiting) >= BATCH:
            self.flush()

    def send(self, message: ToDaemon) -> None:
        """Send a message now, after every exchange before it."""
        self.flush()
        self._channel.send(encode(message))

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._channel.send(encode(Exchanges(tuple(waiting))))

    def _flush_and_pause(self) -> None:
        """Send what waits, and let what comes in the next moments wait; if nothing came, the next is told at once."""
        self._pause = None
        if self._waiting:
            self.flush()
            self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_and_pause)
