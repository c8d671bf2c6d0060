"""Happy Eyeballs (RFC 8305): of several addresses of one name, the first that answers is used. Knows no TLS.

    v6 ── connecting ───────────────────────── given up
         250 ms ─▶ v4 ── connected ─▶ used                  a failure starts the next one at once

Comes after the address guard: every target was judged before, and nothing is looked up here.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from moat.proxy.refusal import Refusal
from moat.proxy.server.stream import PlainStream

STAGGER_S = 0.25  # RFC 8305 §5: the recommended Connection Attempt Delay
MAX_TARGETS = 8  # a name may have hundreds of addresses, by its owner's will; nobody waits for more dead ones than this

Target: TypeAlias = tuple[str, int]


def interleaved(targets: Sequence[Target]) -> list[Target]:
    """Return targets with the families in turns (RFC 8305 §4), the resolver's first one first; at most MAX_TARGETS."""
    sixes = [target for target in targets if ":" in target[0]]
    fours = [target for target in targets if ":" not in target[0]]
    first, second = (sixes, fours) if targets and ":" in targets[0][0] else (fours, sixes)
    pairs = itertools.zip_longest(first, second)
    return [target for pair in pairs for target in pair if target is not None][:MAX_TARGETS]


async def first_connected(
    targets: Sequence[Target], connect: Callable[[Target], Awaitable[PlainStream]], *, stagger_s: float = STAGGER_S
) -> PlainStream:
    """Return the first connection that connect makes; the others are given up.

    targets: at least one, in the order to be tried. connect: raises Refusal. Raises the Refusal that came last.
    """
    if len(targets) == 1:
        return await connect(targets[0])
    race = _Race(connect)
    try:
        await race.run(targets, stagger_s)
    except BaseException:
        race.abort(race.streams)
        raise
    race.abort(race.streams[1:])
    if not race.streams:
        raise race.failures[-1]
    return race.streams[0]


@dataclass(slots=True)
class _Race:
    """Attempts under way and what became of them. news: something did since the last look."""

    connect: Callable[[Target], Awaitable[PlainStream]]
    streams: list[PlainStream] = field(default_factory=list)
    failures: list[Refusal] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, targets: Sequence[Target], stagger_s: float) -> None:
        """Start attempts one after the other until one has connected or all have failed."""
        async with asyncio.TaskGroup() as group:
            attempts = []
            for target in targets:
                attempts.append(group.create_task(self._attempt(target)))
                await self._look(stagger_s)
                if self.streams:
                    break
            while not self.streams and len(self.failures) < len(targets):
                await self._look(None)
            for attempt in attempts:
                attempt.cancel()

    def abort(self, streams: Sequence[PlainStream]) -> None:
        """Close connections that nobody needs: two may be made in one turn of the loop."""
        for stream in streams:
            stream.abort()

    async def _attempt(self, target: Target) -> None:
        try:
            self.streams.append(await self.connect(target))
        except Refusal as refusal:
            self.failures.append(refusal)
        self.news.set()

    async def _look(self, limit_s: float | None) -> None:
        """Wait for news, limit_s at most; None: for as long as it takes."""
        try:
            async with asyncio.timeout(limit_s):
                await self.news.wait()
        except TimeoutError:
            return
        self.news.clear()
