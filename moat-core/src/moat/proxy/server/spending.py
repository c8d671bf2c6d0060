"""What the audit must know before a credential leaves: the first use of a grant in a tunnel waits until it is entered.

    request ─▶ known in this tunnel? ─ yes ─▶ counted, told within a second ─▶ goes on
                   └ no ─ Spend ─▶ daemon: entered for good ─▶ Noted ─▶ known ─▶ goes on       could not be: 503

A tunnel is one connection of a client's. What is known is asked by the pool's key: run, authority, grants, endpoint.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from moat.proxy.flow import Passage
from moat.proxy.messages import Noted, Spend, Uses
from moat.proxy.refusal import Refusal
from moat.proxy.server.pool import Key

ANSWER_S = 10.0  # the daemon writes to a disk; one that takes longer is as good as full
FLUSH_S = 0.5  # the daemon takes another half second at most


@dataclass(slots=True)
class Use:
    """Uses of one kind in one tunnel. count: since they were told. is_fresh: the first is entered, and to leave."""

    key: Key
    count: int = 0
    is_fresh: bool = True


class Spending:
    """What the tunnels of a worker share. send: to the daemon."""

    def __init__(self, send: Callable[[Spend | Uses], None], answer_s: float = ANSWER_S) -> None:
        self._send = send
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._tunnels = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._untold: list[Use] = []
        self._pause: asyncio.TimerHandle | None = None

    def tunnel(self) -> Tunnel:
        """Return a new tunnel, in which nothing is known."""
        return Tunnel(self, next(self._tunnels))

    def noted(self, message: Noted) -> None:
        """Take the daemon's answer."""
        waiting = self._waiting.get(message.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.problem)

    def flush(self) -> None:
        """Tell what was counted."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        untold, self._untold = self._untold, []
        runs: dict[str, Counter[tuple[str, str]]] = {}
        for use in untold:
            for grant in use.key.grants:
                runs.setdefault(use.key.run_id, Counter())[grant, where_of(use.key)] += use.count
            use.count = 0
        for run_id, counts in runs.items():
            self._send(Uses(run_id, tuple((grant, where, count) for (grant, where), count in counts.items())))

    async def enter(self, key: Key, via: str, tunnel: int) -> None:
        """Return once a first use is entered. Raises Refusal when it cannot be."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(Spend(number, key.run_id, key.grants, where_of(key), via, tunnel))
        try:
            async with asyncio.timeout(self._answer_s):
                problem = await waiting
        except TimeoutError:
            problem = f"it did not happen in {self._answer_s:g} s"
        finally:
            del self._waiting[number]
        if problem:
            reason = f"{', '.join(key.grants)} is not spent before the audit has it: {problem}"
            raise Refusal(503, reason, kind="audit", keeps=True)

    def count(self, use: Use) -> None:
        """Count one use more, but for the first, which is entered by itself."""
        if use.is_fresh:
            use.is_fresh = False
            return
        if not use.count:
            self._untold.append(use)
            if self._pause is None:
                self._pause = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        use.count += 1


class Tunnel:
    """What is known in one client connection."""

    __slots__ = ("_entering", "_spending", "_uses", "number")

    def __init__(self, spending: Spending, number: int) -> None:
        self._spending = spending
        self.number = number
        self._uses: dict[Key, Use] = {}
        self._entering: dict[Key, asyncio.Event] = {}

    def known(self, key: Key) -> Use | None:
        """Return the uses like this one, None where the first of them is not entered."""
        return self._uses.get(key)

    def count(self, use: Use) -> None:
        """Count a use that leaves. Where use.count is not 0, adding to that is enough."""
        self._spending.count(use)

    async def spend(self, run_id: str, passage: Passage, via: str) -> None:
        """Return when a request may leave as far as the audit is concerned, and count it. Raises Refusal."""
        await self.spend_at(Key(run_id, passage.authority, passage.grants, passage.upstream), via)

    async def spend_at(self, key: Key, via: str) -> None:
        """Return when what is told by key may happen, and count it. Raises Refusal."""
        if key.grants:
            self.count(await self.enter(key, via))

    async def enter(self, key: Key, via: str) -> Use:
        """Return the uses like this one once the first of them is entered. Raises Refusal."""
        while (entering := self._entering.get(key)) is not None:  # a hundred streams at once are one first use
            await entering.wait()
        if (use := self._uses.get(key)) is not None:
            return use
        entering = self._entering[key] = asyncio.Event()
        try:
            await self._spending.enter(key, via, self.number)
            use = self._uses[key] = Use(key)
            return use
        finally:
            del self._entering[key]
            entering.set()


def where_of(key: Key) -> str:
    """Return what the audit calls an authority."""
    return f"{key.authority.scheme}://{key.authority}"
