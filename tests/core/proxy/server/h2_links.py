"""Two links, one at each end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from moat.proxy.http2 import Head, Http2
from moat.proxy.http2_heads import plain_fields
from moat.proxy.server.h2_lane import Lane
from moat.proxy.server.h2_link import Link

from core.proxy.server.pairs import plain_pair, until

REQUEST = plain_fields([(":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/")])


@dataclass
class Ends:
    """A link that asks and one that answers. taken: what the latter was asked."""

    asking: Link
    answering: Link
    taken: list[tuple[Lane, Head]] = field(default_factory=list)

    async def ask(self, *, is_over: bool = False) -> tuple[Lane, Lane]:
        """Return the two ends of a new stream."""
        near = self.asking.open(REQUEST, is_over=is_over)
        await until(lambda: bool(self.taken) and self.taken[-1][0].number == near.number)
        return near, self.taken[-1][0]


@contextlib.asynccontextmanager
async def two_links() -> AsyncIterator[Ends]:
    client, server = await plain_pair()
    ends: Ends
    answering = Link(server, Http2(is_client=False), lambda lane, head: ends.taken.append((lane, head)))
    ends = Ends(Link(client, Http2(is_client=True)), answering)
    async with asyncio.TaskGroup() as group:
        for link in (ends.asking, ends.answering):
            group.create_task(link.run())
        try:
            yield ends
        finally:
            client.abort()
            server.abort()


async def everything(lane: Lane) -> bytes:
    body = b""
    while not lane.body.is_done:
        if payload := lane.body.take(lane.buffer):
            body += payload
        else:
            await lane.more()
    return body
