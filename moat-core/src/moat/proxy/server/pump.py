"""Passes an answer's body on from callback to callback: what came is written on before anybody else's turn.

    upstream ─ sink ─▶ reader (unframed, scrubbed) ─▶ writer (framed again) ─▶ client
                         └ its end, trouble, or a client that does not keep up ─▶ the task that waits goes on

A task in between would cost every event of a stream a future and a turn of the loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from moat.proxy.bodies import BodyReader, BodyWriter
from moat.proxy.http1 import Malformed
from moat.proxy.record import Trail
from moat.proxy.server.stream import Stream


@dataclass(slots=True)
class Pump:
    """One answer's body on its way down."""

    client: Stream
    upstream: Stream
    reader: BodyReader
    writer: BodyWriter
    trail: Trail
    _unsent: bytes = b""
    _problem: Malformed | None = None
    _woken: asyncio.Future[None] | None = None

    async def run(self, head: bytes) -> bytes:
        """Send head and body; return the last bytes, unsent, since nothing may be awaited after they are.

        The reader is not done then if the upstream closed early. Raises StreamBroken, of either side, and Malformed.
        """
        self._unsent = head
        while not self.reader.is_done:
            took = self._take()
            if self.reader.is_done:
                break
            if self._unsent:
                self._write()
            await self.client.drain()
            if self.reader.has_more:
                await asyncio.sleep(0)  # what many small chunks cost is not taken of others' time at once
            elif not took and not await self._flow():
                break
        return self._unsent

    async def _flow(self) -> bool:
        """Pass on what comes by callback, till that cannot go on; return False when the upstream has closed."""
        upstream = self.upstream
        upstream.resume()
        if upstream.is_over:
            return await upstream.more()
        self._woken = asyncio.get_running_loop().create_future()
        upstream.sink = self._on_bytes
        try:
            await self._woken
        finally:
            upstream.sink = self._woken = None
        if self._problem is not None:
            raise self._problem
        return True

    def _on_bytes(self) -> None:
        try:
            took = self._take()
        except Malformed as problem:
            self._problem = problem
            return self._wake()
        if self.reader.is_done:
            return self._wake()
        if took:
            self._write()
        if self.client.is_full or self.upstream.is_over or self.reader.has_more:
            self._wake()
        else:
            self.upstream.resume()  # so much may have come at once that it was paused
        return None

    def _take(self) -> bool:
        """Take what is there of the body; return whether that was anything."""
        payload = self.reader.take(self.upstream.buffer)
        if payload:
            self.trail.received(payload)
            self._unsent += self.writer.encode(payload)
        return bool(payload)

    def _write(self) -> None:
        self.client.write(self._unsent)
        self._unsent = b""

    def _wake(self) -> None:
        """Have the task go on. What comes before its turn, which may be megabytes, waits in the upstream's buffer."""
        self.upstream.sink = None
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
