"""What the worker tells the daemon: exchanges in batches, since a frame for each costs more than the exchange's TLS.

exchange ─▶ quiet before: told at once │ else it waits with others, FLUSH_S at most ─▶ one frame a run
send ─▶ what waits, then the message: a Pong comes after every exchange that ended before it

What is plain waits, and is told, as numbers: the daemon makes lines of a whole batch at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from moat.api.runs import ExchangeRecord
from moat.frames import FrameChannel
from moat.proxy.counts import Counts
from moat.proxy.forwarded import TIMES_BYTES, Forwarded, count_all, lines_of, packed
from moat.proxy.messages import Exchanges, ToDaemon, encode
from moat.proxy.record import Line, line_of, new_numbers

FLUSH_S = 0.1  # what a crash of a busy worker may lose; the daemon writes once a second
BATCH_CHARS = (
    1_048_576  # of lines, some 1,700: a frame has a limit, and the daemon takes less than a millisecond for them
)


@dataclass(slots=True)
class _Batch:
    """What waits of one run: whole lines, and then the times of exchanges whose lines are still to be made.

    turns: from which of them on which line is theirs.
    """

    counts: Counts = field(default_factory=Counts)
    lines: list[bytes] = field(default_factory=list)
    turns: list[tuple[int, Line]] = field(default_factory=list)
    times: bytearray = field(default_factory=bytearray)

    def turn(self, line: Line) -> None:
        """Take that the next exchanges have this line."""
        if not self.turns or self.turns[-1][1] is not line:
            self.turns.append((self._waiting, line))

    def told(self, run_id: str) -> Exchanges | Forwarded:
        """Return all of it."""
        if not self.lines and len(self.turns) == 1:
            return Forwarded(run_id, self.turns[0][1], new_numbers(self._waiting), bytes(self.times))
        self.settle()
        return Exchanges(run_id, self.counts, b"".join(self.lines))

    def settle(self) -> None:
        """Make the lines that are to be made, for others to come after them."""
        if not self.times:
            return
        ends = [*(begin for begin, _ in self.turns[1:]), self._waiting]
        lines = [line for (begin, line), end in zip(self.turns, ends, strict=True) for _ in range(begin, end)]
        count_all(self.counts, lines, self.times)
        self.lines.append(lines_of(lines, new_numbers(len(lines)), self.times))
        self.turns, self.times = [], bytearray()

    @property
    def _waiting(self) -> int:
        return len(self.times) // TIMES_BYTES


class Reports:
    """The worker's end of its channel, for sending."""

    def __init__(self, channel: FrameChannel) -> None:
        self._channel = channel
        self._waiting: dict[str, _Batch] = {}
        self._line: Line | None = None  # of the last exchange, if the next may go where it went
        self._times = bytearray()  # of its batch
        self._room = 0  # characters left, 0 after a silence
        self._pause: asyncio.TimerHandle | None = None

    def exchange(self, record: ExchangeRecord) -> None:
        """Report one finished exchange, soon."""
        line = f"{line_of(record)}\n"
        batch = self._waiting.get(record.run_id) or self._batch(record.run_id)
        self._line = None
        batch.settle()
        batch.lines.append(line.encode())
        batch.counts.record(record)
        self._room -= len(line)
        if self._room <= 0:
            self._enough()

    def forwarded(self, run_id: str, line: Line, at: float, duration_ms: float, first_byte_ms: float) -> None:
        """Report one that was forwarded, and is like others but for its times. See `packed`."""
        if line is not self._line:
            self._turn(run_id, line)
        self._times += packed(at, duration_ms, first_byte_ms)
        self._room -= line.size
        if self._room <= 0:
            self._enough()

    def send(self, message: ToDaemon) -> None:
        """Send a message now, after every exchange before it."""
        self.flush()
        self._channel.send(encode(message))

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting, self._line = self._waiting, {}, None
        self._room = 0 if self._pause is None else BATCH_CHARS
        for run_id, batch in waiting.items():
            self._channel.send(encode(batch.told(run_id)))

    def _batch(self, run_id: str) -> _Batch:
        batch = self._waiting[run_id] = _Batch()
        return batch

    def _turn(self, run_id: str, line: Line) -> None:
        batch = self._waiting.get(run_id) or self._batch(run_id)
        batch.turn(line)
        self._line, self._times = line, batch.times

    def _enough(self) -> None:
        if self._pause is None:
            self._flush_and_pause()
        else:
            self.flush()

    def _flush_and_pause(self) -> None:
        """Send what waits, and let what comes in the next moments wait; if nothing came, the next is told at once."""
        self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_and_pause) if self._waiting else None
        self.flush()
