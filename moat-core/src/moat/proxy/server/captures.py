"""Tokens that a token endpoint handed out, on their way to the daemon: stored there before the client hears of them.

    exchange ─▶ turn ─▶ upstream ─▶ settle ─ Captured ─▶ daemon: stored, in force ─ Kept ─▶ answer with placeholders
    the same refresh token again ─▶ turn ─▶ the same answer, without asking upstream, where it may be spent only once

A client that goes away meanwhile changes nothing: what upstream handed out is stored all the same (`apart`). What could
not be stored is kept here, and tried again with the next request that spends the same token.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TypeVar

from moat.proxy.bodies import BodyReader
from moat.proxy.capture import Caught
from moat.proxy.holds import Share
from moat.proxy.http1 import Response
from moat.proxy.messages import Captured, Kept
from moat.proxy.refusal import Refusal
from moat.proxy.server.settle import Ready, Source, settle
from moat.proxy.whole import WholeTask

KEEP_S = 30.0  # the daemon asks a keyring, which may take its ten seconds
TURN_S = 60.0
KNOWN_S = 300.0  # how long the answer to a spent refresh token is repeated: above what clients retry for
MAX_KNOWN = 128

T = TypeVar("T")
V = TypeVar("V")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """An answer as the client got it. It holds placeholders only."""

    response: Response
    body: bytes = field(repr=False)
    at: float

    def reader(self) -> BodyReader:
        """Return a reader of its body."""
        return Ready(self.body)


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Captures:
    """What is being captured. send: takes a Captured to the daemon. group: where work is done that must be finished."""

    def __init__(
        self,
        send: Callable[[Captured], None] = lambda _: None,
        group: asyncio.TaskGroup | None = None,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._group = group
        self._keep_s = keep_s
        self._clock = clock
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._turns: dict[str, _Turn] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._late: OrderedDict[str, tuple[Captured, Known]] = OrderedDict()
        self._apart: set[asyncio.Task[None]] = set()

    async def apart(self, work: Coroutine[None, None, T]) -> T:
        """Do work to its end, also when whoever waits for it is cancelled; a refresh token cannot be spent again."""
        if self._group is None:
            return await work
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(_finished(work, done))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)
        return await done

    def close(self) -> None:
        """End what is under way: the daemon is gone, and nobody keeps anything."""
        for task in self._apart:
            task.cancel()

    @contextlib.asynccontextmanager
    async def turn(self, task: WholeTask) -> AsyncIterator[Known | None]:
        """Wait until nobody else spends the same refresh token; yield the answer it had, if it was spent before.

        Raises Refusal, also where the tokens of that answer still cannot be stored.
        """
        turn = self._turns.setdefault(task.key, _Turn())
        turn.waiting += 1
        try:
            await _locked(turn.lock)
            try:
                await self._keep_late(task.key)
                yield self._remembered(task.key)
            finally:
                turn.lock.release()
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[task.key]

    async def settle(
        self, task: WholeTask, run_id: str, response: Response, reader: BodyReader, source: Source, share: Share
    ) -> tuple[Response, BodyReader]:
        """Return the answer as it goes on, and its reader; see `settle`. Raises Refusal."""
        came: list[Captured] = []
        problem: Refusal | None = None

        async def keep(grant: str, found: Caught) -> None:
            nonlocal problem
            came.append(Captured(next(self._numbers), run_id, grant, dict(found.tokens), found.expires_in or 0))
            try:
                await self._keep(came[0])
            except Refusal as refusal:
                problem = refusal

        response, reader = await settle(task, response, reader, source, keep, share)
        if came and isinstance(reader, Ready) and _is_spent(task, came[0]):
            known = Known(response, reader.body, self._clock())
            if problem is None:
                _bounded(self._known, task.key, known)
            else:
                _bounded(self._late, task.key, (came[0], known))
        if problem is not None:
            raise problem
        return response, reader

    def kept(self, message: Kept) -> None:
        """Take the daemon's word; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(message.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.problem)

    async def _keep_late(self, key: str) -> None:
        """Try again to have stored what could not be. Raises Refusal."""
        if (late := self._late.get(key)) is None:
            return
        message, known = late
        await self._keep(replace(message, id=next(self._numbers)))
        del self._late[key]
        _bounded(self._known, key, replace(known, at=self._clock()))

    async def _keep(self, message: Captured) -> None:
        """Return once the tokens are stored and in force. Raises Refusal."""
        number, grant = message.id, message.grant
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._send(message)
        try:
            async with asyncio.timeout(self._keep_s):
                problem = await waiting
        except TimeoutError:
            problem = f"the daemon did not answer in {self._keep_s:g} s"
        finally:
            del self._waiting[number]
        if problem:
            raise Refusal(503, f"the new tokens of the grant {grant} were not stored: {problem}", "failed", "capture")

    def _remembered(self, key: str) -> Known | None:
        known = self._known.get(key)
        if known is None or known.at + KNOWN_S > self._clock():
            return known
        del self._known[key]
        return None


def _bounded(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    while len(memory) > MAX_KNOWN:
        memory.popitem(last=False)


def _is_spent(task: WholeTask, came: Captured) -> bool:
    """Whether what the request spent was replaced by the answer; a token that stays good may be used as often."""
    spent = () if task.capture is None else task.capture.request.values()
    return task.capture is not None and any(task.capture.tokens[name] in spent for name in came.tokens)


async def _finished(work: Coroutine[None, None, T], done: asyncio.Future[T]) -> None:
    try:
        result = await work
    except Exception as problem:  # noqa: BLE001 # the top of a task: told to whoever waits, else written down
        if not done.done():
            done.set_exception(problem)
        else:
            log.warning("a capture ended without its client", extra={"error": type(problem).__name__})
    else:
        if not done.done():
            done.set_result(result)


async def _locked(lock: asyncio.Lock) -> None:
    try:
        async with asyncio.timeout(TURN_S):
            await lock.acquire()
    except TimeoutError:
        raise Refusal(503, "the grant is being renewed by another request", "failed", "capture") from None
