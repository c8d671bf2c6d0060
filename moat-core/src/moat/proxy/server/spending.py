"""What the audit must know before a credential leaves: the first use of a grant in a tunnel waits until it is entered.

    request ─▶ known in this tunnel? ─ yes ─▶ counted, told within a second ─▶ goes on
                   └ no ─▶ gathered ─ Spends ─▶ daemon: entered for good ─▶ Entered ─▶ known ─▶ goes on      else: 503

A tunnel is one connection of a client's. What is known is asked by the pool's key: run, authority, grants, endpoint.
One use at a time is asked at once. Where many come, those of some milliseconds are one question, since most of what one
costs is the same for a hundred: a message, the waking of a thread, a sync of the disk. Nobody waits once every tunnel
that has begun has come.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.flow import Passage
from moat.proxy.messages import Uses
from moat.proxy.refusal import Refusal
from moat.proxy.server.pool import Key

ANSWER_S = 10.0  # the daemon writes to a disk; one that takes longer is as good as full
FLUSH_S = 0.5  # the daemon takes another half second at most
GATHER_S = 0.004  # of a first use's delay, where others come too; a sync of the disk takes as long

Done = Callable[[str], None]  # of what keeps a use from being entered, "" for nothing


@dataclass(slots=True)
class Use:
    """Uses of one kind in one tunnel. count: since they were told. is_fresh: the first is entered, and to leave."""

    key: Key
    count: int = 0
    is_fresh: bool = True


class Spending:
    """What the tunnels of a worker share. ask, tell: to the daemon. gather_s: 0 asks at once, whatever comes."""

    def __init__(
        self, ask: Callable[[Spends], None], tell: Callable[[Uses], None], *,
        answer_s: float = ANSWER_S, gather_s: float = GATHER_S,
    ) -> None:  # fmt: skip
        self._ask, self._tell = ask, tell
        self._answer_s = answer_s
        self._gather_s = gather_s
        self._numbers = itertools.count(1)
        self._tunnels = itertools.count(1)
        self._gathered: list[tuple[Spend, Done]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._asked: dict[int, tuple[list[tuple[Spend, Done]], asyncio.TimerHandle]] = {}
        self._is_busy = False
        self._coming = 0  # tunnels that have begun, and may have a first use at any moment
        self._untold: list[Use] = []
        self._pause: asyncio.TimerHandle | None = None

    def tunnel(self) -> Tunnel:
        """Return a new tunnel, in which nothing is known."""
        self._coming += 1
        return Tunnel(self, next(self._tunnels))

    def enter(self, spend: Spend, done: Done) -> None:
        """Have a first use entered; done is called with why it could not be, "" once it is."""
        self._gathered.append((spend, done))
        if self._gathering is not None:
            return
        if self._asked:
            self._is_busy = True  # others come while one is entered
        if self._is_busy and self._gather_s:
            self._gathering = asyncio.get_running_loop().call_later(self._gather_s, self._ask_now)
        else:
            self._ask_now()

    def came(self) -> None:
        """Take that a tunnel is not waited for any more."""
        self._coming -= 1
        self._ask_if_all_are_here()

    def entered(self, message: Entered) -> None:
        """Take the daemon's answer."""
        if (asked := self._asked.pop(message.id, None)) is None:
            return
        uses, limit = asked
        limit.cancel()
        self._answered(uses, message.problems)

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
            self._tell(Uses(run_id, tuple((grant, where, count) for (grant, where), count in counts.items())))

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

    def _ask_if_all_are_here(self) -> None:
        if not self._coming and self._gathering is not None:
            self._gathering.cancel()
            self._ask_now()

    def _ask_now(self) -> None:
        self._gathering = None
        uses, self._gathered = self._gathered, []
        self._is_busy = len(uses) > 1
        number = next(self._numbers)
        limit = asyncio.get_running_loop().call_later(self._answer_s, self._give_up, number)
        self._asked[number] = uses, limit
        self._ask(Spends(number, tuple(spend for spend, _ in uses)))

    def _give_up(self, number: int) -> None:
        uses, _ = self._asked.pop(number)
        self._answered(uses, (f"it did not happen in {self._answer_s:g} s",) * len(uses))

    def _answered(self, uses: Sequence[tuple[Spend, Done]], problems: Sequence[str]) -> None:
        """Tell who waits. problems: one for each, or none at all where every use is entered."""
        for number, (_, done) in enumerate(uses):
            done(problems[number] if problems else "")


class Tunnel:
    """What is known in one client connection."""

    __slots__ = ("_entering", "_is_coming", "_spending", "_uses", "number")

    def __init__(self, spending: Spending, number: int) -> None:
        self._spending = spending
        self.number = number
        self._is_coming = True
        self._uses: dict[Key, Use] = {}
        self._entering: dict[Key, list[Done]] = {}

    def known(self, key: Key) -> Use | None:
        """Return the uses like this one, None where the first of them is not entered."""
        return self._uses.get(key) if self._uses else None  # a key's hash is a call

    def count(self, use: Use) -> None:
        """Count a use that leaves. Where use.count is not 0, adding to that is enough."""
        self._spending.count(use)

    async def spend(self, run_id: str, passage: Passage, via: str) -> None:
        """Return when a request may leave as far as the audit is concerned, and count it. Raises Refusal."""
        await self.spend_at(Key(run_id, passage.authority, passage.grants, passage.upstream), via)

    async def spend_at(self, key: Key, via: str) -> None:
        """Return when what is told by key may happen, and count it. Raises Refusal."""
        if not key.grants:
            return self.came()
        return self.count(await self.enter(key, via))

    def came(self) -> None:
        """Let nobody wait for this tunnel: its first request has come, or it has ended."""
        if self._is_coming:
            self._is_coming = False
            self._spending.came()

    async def enter(self, key: Key, via: str) -> Use:
        """Return the uses like this one once the first of them is entered. Raises Refusal."""
        if (use := self._uses.get(key)) is None:
            waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self.ask(key, via, partial(_settle, waiting))
            if problem := await waiting:
                reason = f"{', '.join(key.grants)} is not spent before the audit has it: {problem}"
                raise Refusal(503, reason, kind="audit", keeps=True)
            use = self._uses[key]
        return use

    def ask(self, key: Key, via: str, done: Done) -> None:
        """Have the first use like this one entered; done is called with why it could not be, "" once it is known."""
        waiting = self._entering.setdefault(key, [])
        waiting.append(done)
        if len(waiting) > 1:  # a hundred streams at once are one first use
            return
        spend = Spend(key.run_id, key.grants, where_of(key), via, self.number)
        self._spending.enter(spend, partial(self._entered, key))
        self.came()

    def _entered(self, key: Key, problem: str) -> None:
        if not problem:
            self._uses[key] = Use(key)
        for done in self._entering.pop(key):
            done(problem)


def where_of(key: Key) -> str:
    """Return what the audit calls an authority."""
    return f"{key.authority.scheme}://{key.authority}"


def _settle(waiting: asyncio.Future[str], problem: str) -> None:
    if not waiting.done():
        waiting.set_result(problem)
