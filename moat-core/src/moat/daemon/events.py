"""What happens, told to whoever listens: a bounded queue for each, and nobody is waited for.

    run_started · run_stopped · exchange · grant ─▶ tell ─▶ queue of each listener ─▶ GET /v1/events

A listener that does not keep up is dropped: the last thing it gets is a marker that says so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from moat.api.runs import ExchangeRecord, RunInfo

QUEUE_LENGTH = 1_024  # a burst of requests of a second or so
MAX_LISTENERS = 32
DROPPED, CLOSED = "dropped", "closed"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. run_id: whose; "" for what concerns no single run. data: for JSON, never a secret."""

    number: int
    kind: str
    run_id: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether the stream ends with it."""
        return self.kind in (DROPPED, CLOSED)

    def render(self) -> bytes:
        """Return the event as the stream has it."""
        text = json.dumps({"run_id": self.run_id, **self.data} if self.run_id else self.data, separators=(",", ":"))
        return f"id: {self.number}\nevent: {self.kind}\ndata: {text}\n\n".encode()


class Listener:
    """One listener's queue. run_id: the one run it wants to hear of; "" for all."""

    def __init__(self, run_id: str, length: int) -> None:
        self._run_id = run_id
        self._length = length
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._is_over = False

    def offer(self, event: Event) -> None:
        """Take an event, if it is wanted; one too many ends it all."""
        if self._is_over or (self._run_id and event.run_id not in ("", self._run_id)):
            return
        if self._queue.qsize() < self._length:
            self._queue.put_nowait(event)
        else:
            self.end(Event(event.number, DROPPED, data={"reason": "this listener did not keep up; connect again"}))

    def end(self, last: Event) -> None:
        """Make last the last event."""
        if not self._is_over:
            self._is_over = True
            self._queue.put_nowait(last)

    async def next(self, timeout_s: float) -> Event | None:
        """Return the next event; None when there is none within timeout_s."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        except TimeoutError:
            return None


class Events:
    """The listeners of one daemon. Nothing in it waits."""

    def __init__(self, length: int = QUEUE_LENGTH) -> None:
        self._length = length
        self._listeners: list[Listener] = []
        self._numbers = itertools.count(1)
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def watches_exchanges(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    @contextmanager
    def listening(self, run_id: str = "") -> Iterator[Listener | None]:
        """Yield a listener for as long as the block lasts; None when there are too many."""
        if len(self._listeners) >= MAX_LISTENERS:
            yield None
            return
        listener = Listener(run_id, self._length)
        if self._is_closed:
            listener.end(self._event(CLOSED))
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def tell(self, kind: str, run_id: str = "", **data: object) -> None:
        """Tell everybody."""
        if self._listeners:
            event = self._event(kind, run_id, data)
            for listener in self._listeners:
                listener.offer(event)

    def run_started(self, run: RunInfo) -> None:
        """Tell that a run's command may start now."""
        self.tell("run_started", run.run_id, run=asdict(run))

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        """Tell that a run is over."""
        self.tell("run_stopped", run.run_id, run=asdict(run), exit_code=exit_code)

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Tell of one request and its answer."""
        if self._listeners:
            self.tell("exchange", run_id, exchange=asdict(exchange))

    def close(self) -> None:
        """End every listener, those to come too: the daemon leaves."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end(self._event(CLOSED))

    def _event(self, kind: str, run_id: str = "", data: dict[str, Any] | None = None) -> Event:
        return Event(next(self._numbers), kind, run_id, data or {})
