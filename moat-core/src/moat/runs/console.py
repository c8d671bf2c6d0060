"""A run's descriptors when no command line holds them: a terminal or pipes of its own, kept, and shown to viewers.

                          ┌─▶ journal (console.jsonl)
    the run ──▶ console ──┼─▶ the last bytes, for whoever attaches later
            ◀── keys ─────┴─▶ viewers: `moat run`, `moat attach`

The run waits for a viewer that does not read, as it would for a terminal; one that is gone is waited for no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import termios
import time
from collections import deque
from dataclasses import field
from types import TracebackType
from typing import Any

from moat.api.light import dataclass
from moat.api.runtimes import Stdio
from moat.frames import TAIL, FrameChannel
from moat.runs.journal import Journal, Stream

DRAIN_S = 2.0  # the last bytes, after everything inside has ended
BACKLOG_BYTES = 65_536  # a screenful and more, for who attaches later
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Shape:
    """What the console is. size: rows and columns of its terminal, None for pipes. settings: termios, as tcgetattr.

    given: descriptors of the caller's that the command gets untouched, by number (0, 1, 2): a file, another's pipe.
    """

    size: tuple[int, int] | None = None
    settings: list[Any] | None = None
    given: dict[int, int] = field(default_factory=dict)


class Console:
    """One run's console, on the running loop. Enter it; carry() while the command runs; leaving it empties it."""

    def __init__(self, shape: Shape, journal: Journal) -> None:
        self._shape = shape
        self._journal = journal
        self._size = shape.size
        self._sources: dict[int, Stream] = {}
        self._run_ends: dict[int, int] = {}
        self._viewers: list[FrameChannel] = []
        self._backlog: deque[tuple[Stream, bytes]] = deque()
        self._backlog_bytes = 0
        self._typing = asyncio.Lock()
        self._terminal = -1

    @property
    def stdio(self) -> Stdio:
        """What the command gets."""
        return Stdio(*(self._shape.given.get(number, self._run_ends.get(number, -1)) for number in (0, 1, 2)))

    @property
    def has_terminal(self) -> bool:
        """Whether somebody can type."""
        return self._shape.size is not None

    def __enter__(self) -> Console:
        self._journal.begin()
        if self._size is not None:
            self._open_terminal(self._size)
        else:
            self._open_pipes()
        return self

    def begin(self) -> None:
        """Take over the size of a window that changed while the sandbox was made."""
        self.resize()

    async def carry(self) -> None:
        """Carry bytes until cancelled. Our copies of the run's ends stay open: a runtime may carry through them too."""
        async with asyncio.TaskGroup() as group:
            for descriptor, stream in self._sources.items():
                group.create_task(self._carry(descriptor, stream))

    def resize(self) -> tuple[int, int] | None:
        """Give the terminal the size that a viewer asked for, and return it; None where there is no terminal."""
        if self._size is not None and self._terminal >= 0:
            termios.tcsetwinsize(self._terminal, self._size)
        return self._size

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for descriptor in set(self._run_ends.values()):
            os.close(descriptor)  # the last copies, once everything inside has ended
        limit = time.monotonic() + DRAIN_S
        while self._sources and (left := limit - time.monotonic()) > 0:
            for descriptor in select.select(list(self._sources), [], [], left)[0]:
                self._pour(descriptor, self._sources[descriptor])
        for descriptor in list(self._sources):
            self._end_source(descriptor)
        self._journal.close()

    def show_to(self, viewer: FrameChannel) -> None:
        """Show a viewer what was printed last, and from now on everything."""
        for stream, data in self._backlog:
            viewer.send({"stream": stream, TAIL: data})
        self._viewers.append(viewer)

    def forget(self, viewer: FrameChannel) -> None:
        """Show this viewer nothing more."""
        with contextlib.suppress(ValueError):
            self._viewers.remove(viewer)

    def ask_size(self, rows: int, columns: int) -> None:
        """Note the size of the viewer's window; `resize` puts it into effect."""
        if self._size is not None:
            self._size = max(1, min(rows, 0xFFFF)), max(1, min(columns, 0xFFFF))  # what a winsize holds

    async def type(self, keys: bytes) -> None:
        """Type what a viewer typed; waits while the run reads nothing."""
        view = memoryview(keys)
        async with self._typing:
            while view and self._terminal >= 0:
                try:
                    view = view[os.write(self._terminal, view) :]
                except BlockingIOError:
                    await _writable(self._terminal)
                except OSError:
                    return  # the run has closed its end

    def _open_terminal(self, size: tuple[int, int]) -> None:
        master, slave = os.openpty()
        if self._shape.settings is not None:
            termios.tcsetattr(slave, termios.TCSANOW, self._shape.settings)
        termios.tcsetwinsize(slave, size)
        os.set_blocking(master, False)
        self._terminal = master
        self._sources[master] = "terminal"
        self._run_ends = {number: slave for number in (0, 1, 2) if number not in self._shape.given}

    def _open_pipes(self) -> None:
        self._run_ends[0] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        streams: tuple[tuple[int, Stream], ...] = ((1, "stdout"), (2, "stderr"))
        for number, stream in streams:
            ours, self._run_ends[number] = os.pipe()
            os.set_blocking(ours, False)
            self._sources[ours] = stream

    async def _carry(self, descriptor: int, stream: Stream) -> None:
        while descriptor in self._sources:
            await _readable(descriptor)
            self._pour(descriptor, stream)
            for viewer in tuple(self._viewers):
                await viewer.drained()

    def _pour(self, descriptor: int, stream: Stream) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # how a terminal tells its end: EIO (pty(7))
        if data:
            self._take(stream, data)
        else:
            self._end_source(descriptor)

    def _take(self, stream: Stream, data: bytes) -> None:
        self._journal.write(stream, data)
        self._backlog.append((stream, data))
        self._backlog_bytes += len(data)
        while self._backlog_bytes > BACKLOG_BYTES and len(self._backlog) > 1:
            self._backlog_bytes -= len(self._backlog.popleft()[1])
        for viewer in self._viewers:
            viewer.send({"stream": stream, TAIL: data})

    def _end_source(self, descriptor: int) -> None:
        if self._sources.pop(descriptor, None) is None:
            return
        if descriptor == self._terminal:
            self._terminal = -1
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _done, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _done, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
