"""One HTTP/2 connection over a stream, either side: reads for all of its lanes, and writes for one after the other.

    stream ═ bytes ═▶ Http2 ═ events ═▶ Lane.buffer ─▶ its reader
    stream ◀═ bytes ═ Http2 ◀═ turn ── Lane.send ◀── its writer          first come, first served

A lane's window opens when its reader has taken, so a slow reader stops its own sender and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hpack.struct import HeaderTuple

from moat.proxy.http1 import Malformed
from moat.proxy.http2 import PROTOCOL_ERROR, REFUSED_STREAM, Event, Farewell, Gone, Head, Http2, Opened, Payload
from moat.proxy.server.h2_lane import Lane, LaneBroken
from moat.proxy.server.stream import Stream, StreamBroken

SLICE_BYTES = 8_192  # taken in at once; then the loop serves others, however many frames a peer packs into its bytes


class Link:
    """One connection. on_request: called for each stream that the peer opens; None where it opens none.

    last: the highest stream that the peer will look at, once it has said goodbye. problem: why the connection ended.
    """

    def __init__(self, stream: Stream, wire: Http2, on_request: Callable[[Lane, Head], None] | None = None) -> None:
        self.stream = stream
        self.wire = wire
        self.lanes: dict[int, Lane] = {}
        self.turn = asyncio.Lock()
        self.is_leaving = False
        self.is_over = False
        self.problem = ""
        self._on_request = on_request

    async def run(self) -> None:
        """Read until the connection ends; what still hangs on it breaks then."""
        try:
            self.flush()
            while not self.problem and (self.stream.buffer or await self.stream.more()):
                await self._take_in()
        except StreamBroken:
            pass
        except Malformed as problem:
            self._end(problem)
        finally:
            self.is_over = self.is_leaving = True
            for lane in list(self.lanes.values()):
                lane.break_off(LaneBroken(None))

    def open(self, fields: Iterable[HeaderTuple], *, is_over: bool) -> Lane:
        """Begin a request of ours. Raises LaneBroken and Malformed when there is no room for it any more."""
        if self.is_over:
            raise LaneBroken(None)
        lane = Lane(self, self.wire.open(fields, is_over=is_over))
        lane.has_finished = is_over
        self.lanes[lane.number] = lane
        self.flush()
        return lane

    def took(self, lane: Lane, count: int) -> None:
        """Let the peer send count bytes more on lane."""
        if not self.is_over and not lane.has_ended:
            self.wire.took(lane.number, count)
            self.flush()

    def blame(self) -> None:
        """Count what the peer did wrong on a stream; too much of that ends the connection."""
        try:
            self.wire.blame()
        except Malformed as problem:
            self._end(problem)

    def forget(self, lane: Lane) -> None:
        """Drop a lane that nobody uses any more."""
        self.lanes.pop(lane.number, None)
        self.wire.forget(lane.number)

    def flush(self) -> None:
        """Write what is to be sent."""
        if data := self.wire.outgoing():
            self.stream.write(data)

    async def drain(self) -> None:
        """Wait while the peer does not read; only in one's turn. Raises LaneBroken."""
        try:
            await self.stream.drain()
        except StreamBroken:
            raise LaneBroken(None) from None

    def _end(self, problem: Malformed) -> None:
        """Say why, and take nothing in any more; whoever runs the link closes its stream."""
        self.problem = str(problem)
        self.flush()

    async def _take_in(self) -> None:
        piece = bytes(memoryview(self.stream.buffer)[:SLICE_BYTES])
        del self.stream.buffer[: len(piece)]
        for event in self.wire.receive(piece):
            self._dispatch(event)
        self.flush()  # a few bytes, and Http2 counts what asks for them: whoever does not read gets no pile of answers
        if self.stream.buffer:
            await asyncio.sleep(0)

    def _dispatch(self, event: Event) -> None:
        match event:
            case Head(kind="request") if self._on_request is not None:
                self._begin(event, self._on_request)
            case Head() | Payload():
                self._take_in_lane(event)
            case Gone(stream, code):
                self._break(stream, LaneBroken(code, is_unseen=code == REFUSED_STREAM))
            case Opened(stream):
                self._give_room(stream)
            case Farewell(last, code):
                self.is_leaving = True
                if self._on_request is None:  # last is about streams that we opened
                    for number in [number for number in self.lanes if number > last]:
                        self._break(number, LaneBroken(code, is_unseen=True))

    def _begin(self, head: Head, on_request: Callable[[Lane, Head], None]) -> None:
        lane = self.lanes[head.stream] = Lane(self, head.stream)
        lane.has_ended = head.is_over
        lane.body.look()
        on_request(lane, head)

    def _give_room(self, stream: int) -> None:
        for number in [stream] if stream else list(self.lanes):
            if (lane := self.lanes.get(number)) is not None:
                lane.give_room()

    def _take_in_lane(self, event: Head | Payload) -> None:
        lane = self.lanes.get(event.stream)
        if lane is None:
            return
        try:
            lane.take_in(event)
        except Malformed as problem:
            self.wire.reset(event.stream, PROTOCOL_ERROR)
            self.wire.blame()
            lane.break_off(LaneBroken(PROTOCOL_ERROR, problem=str(problem)))

    def _break(self, stream: int, problem: LaneBroken) -> None:
        if (lane := self.lanes.get(stream)) is not None:
            lane.break_off(problem)
