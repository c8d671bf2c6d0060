"""Keeps a file like what is in memory: every change is in it soon, and at once for who waits. Knows no format.

    changed ─▶ DEBOUNCE_S (none while somebody waits in `settled`) ─▶ render ─▶ written in a thread, renamed
                                                   └─ fails: told to who waits, tried again every RETRY_S

One write is under way at a time; what changes meanwhile is in the next one: a hundred registrations cost a few writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from moat.api.errors import DaemonError
from moat.paths import UNWRITABLE

DEBOUNCE_S = 0.2
RETRY_S = 2.0  # a disk that is full may have room again

log = logging.getLogger(__name__)


async def first(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for event, but no longer than timeout_s."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


class Ledger:
    """The keeper of one file. render: what it should hold now, in the loop. write: puts it there, in a thread.

    wait: for an event, but no longer than so many seconds.
    """

    def __init__(
        self, render: Callable[[], bytes], write: Callable[[bytes], None],
        wait: Callable[[asyncio.Event, float], Awaitable[None]] = first,
    ) -> None:  # fmt: skip
        self._render = render
        self._write = write
        self._wait = wait
        self._version = 0  # of what is in memory
        self._kept = 0  # of what is on disk
        self._last: bytes | None = None
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_closing = False
        self._waiting: dict[asyncio.Future[None], int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether the disk holds what is in memory."""
        return self._kept == self._version

    def changed(self) -> None:
        """Note that the file is out of date."""
        self._version += 1
        self._changed.set()

    async def settled(self) -> None:
        """Wait until all that has changed so far is on disk. Raises DaemonError when it cannot be written."""
        if self.is_settled:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[done] = self._version
        self._urgent.set()
        try:
            await done
        finally:
            self._waiting.pop(done, None)

    async def keep(self) -> None:
        """Write whenever something has changed, until close is called, and then a last time."""
        try:
            while not self._is_closing:
                await self._changed.wait()
                await self._wait(self._urgent, DEBOUNCE_S)
                self._changed.clear()
                self._urgent.clear()
                if not await self._keep_once() and not self._is_closing:
                    self._changed.set()
                    await self._wait(self._urgent, RETRY_S)
            if not self.is_settled:
                await self._keep_once()
        finally:
            self._ended.set()

    async def close(self) -> None:
        """Write what is not written yet, and end `keep`, which is under way."""
        self._is_closing = True
        self._changed.set()
        self._urgent.set()
        await self._ended.wait()

    async def _keep_once(self) -> bool:
        version, data = self._version, self._render()
        try:
            if data != self._last:
                await asyncio.to_thread(self._write, data)
        except UNWRITABLE as failure:
            log.error("live runs could not be written down", extra={"problem": str(failure)})
            self._last = None
            self._tell(version, DaemonError(f"runs cannot be written down: {failure}", hint="run: moat doctor"))
            return False
        self._last, self._kept = data, version
        self._tell(version, None)
        return True

    def _tell(self, version: int, failure: DaemonError | None) -> None:
        for done, wanted in tuple(self._waiting.items()):
            if wanted > version or done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)
