"""Carry bytes between a container's streams and the descriptors that the launcher was given, changing none.

Descriptors are used as they are: making them non-blocking would do so for whoever else has them, the user's shell too.
So a read happens when there is something to read, and a write takes no more than a ready descriptor takes at once.
Only the run's own pseudo-terminal, which nobody else has, is set up here.

    stdin and stdout are terminals    the container has one too; ours passes every byte as it is
    only stdin is one                 the container has none, so that its output stays plain; Ctrl-C and its like are
                                      taken out of the keys here, since no terminal inside would see them
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator

from moat.api.errors import SandboxFailed
from moat.api.runtimes import Stdio
from moat.runtimes.docker_engine import STDERR, Streams

READ_BYTES = 65_536
READY_BYTES = 4096  # PIPE_BUF: a pipe that polls as writable takes it whole (pipe(7))
KEYS = {b"\x03": signal.SIGINT, b"\x1c": signal.SIGQUIT}  # Ctrl-C, Ctrl-\
DRAIN_S = 2.0  # the last output of a command that was killed: its reader may be stuck
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
END_KEY = b"\x04"  # Ctrl-D
_PRESSED = re.compile(rb"([\x03\x04\x1c])")
_LOCAL_FLAGS = 3  # where tcgetattr keeps them (termios(3))

Signalled = Callable[[int], Awaitable[None]]


@contextlib.contextmanager
def own_descriptors(stdio: Stdio) -> Iterator[Stdio]:
    """Give copies that stay ours: the launcher closes its end of a pseudo-terminal once the run has it."""
    with contextlib.ExitStack() as closing:
        numbers = []
        for number in (stdio.stdin, stdio.stdout, stdio.stderr):
            numbers.append(os.dup(number))
            closing.callback(os.close, numbers[-1])
        yield Stdio(*numbers)


def is_terminal_wanted(stdio: Stdio) -> bool:
    """Whether the container should have a terminal: not where its output goes to a file or another program."""
    return os.isatty(stdio.stdin) and os.isatty(stdio.stdout)


def set_up_terminal(stdio: Stdio, *, has_one_inside: bool) -> None:
    """Prepare the run's own pseudo-terminal. It may be non-blocking: a full one must not stop its own reader."""
    if has_one_inside:
        tty.setraw(stdio.stdin)
        for number in (stdio.stdin, stdio.stdout):
            os.set_blocking(number, False)
        return
    settings = termios.tcgetattr(stdio.stdin)
    settings[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ISIG)
    termios.tcsetattr(stdio.stdin, termios.TCSANOW, settings)


async def feed(source: int, attachment: Streams) -> None:
    """Send everything that source holds to the container, then the end of input. Ends early when the container does."""
    with contextlib.suppress(OSError):  # the container is gone; who waits for it knows
        while data := await read_some(source):
            await attachment.write(data)
        attachment.end_input()


async def feed_keys(source: int, attachment: Streams, signalled: Signalled) -> None:
    """Like feed, for keys typed to a container without a terminal: Ctrl-C and Ctrl-\\ are signals, Ctrl-D the end."""
    with contextlib.suppress(OSError):
        while data := await read_some(source):
            for piece in filter(None, _PRESSED.split(data)):
                if piece == END_KEY:
                    attachment.end_input()
                elif piece in KEYS:
                    await signalled(KEYS[piece])
                else:
                    await attachment.write(piece)
        attachment.end_input()


async def drain(attachment: Streams, stdio: Stdio, broken: Callable[[], object]) -> None:
    """Write the container's output where it belongs, until it ends.

    broken is called once for each descriptor that nobody reads any more; the rest of what goes there is dropped.
    Raises SandboxFailed where a file takes no more: a command whose output is lost has not succeeded.
    """
    deaf: set[int] = set()
    lost = ""
    while (piece := await attachment.read()) is not None:
        stream, data = piece
        target = stdio.stderr if stream == STDERR else stdio.stdout
        if target in deaf:
            continue
        try:
            await write_all(target, data)
        except OSError as failure:
            lost = os.strerror(failure.errno) if failure.errno in FULL else lost
            deaf.add(target)
            broken()
    if lost:  # not before: an engine whose output nobody takes does not end the container either
        raise SandboxFailed(f"what the command printed cannot be written: {lost}")


class Draining:
    """Carries a command's output as `drain` does; that of a killed one only as long as somebody may still take it."""

    def __init__(self, attachment: Streams) -> None:
        self._attachment = attachment
        self._limit: asyncio.Timeout | None = None  # while output is carried

    async def carry(self, stdio: Stdio, broken: Callable[[], object]) -> None:
        """Carry output to its end. Raises like drain."""
        try:
            async with asyncio.timeout(None) as self._limit:
                await drain(self._attachment, stdio, broken)
        except TimeoutError:
            await self._attachment.close()  # the engine, too, waits until its output is taken
        finally:
            self._limit = None

    def hurry(self) -> None:
        """Give up after DRAIN_S: the command is killed."""
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + DRAIN_S)


async def read_some(source: int) -> bytes:
    """Return the next bytes, or b"" at the end. Plain files, which cannot be polled, are read directly."""
    while True:
        try:
            await _ready(source, is_write=False)
            return os.read(source, READ_BYTES)
        except BlockingIOError:
            continue  # somebody else with the same descriptor was faster
        except OSError:
            return b""  # closed (EBADF), or a terminal whose other end is (EIO)


async def write_all(target: int, data: bytes) -> None:
    """Write data. Raises OSError when nobody reads it any more."""
    view = memoryview(data)
    while view:
        await _ready(target, is_write=True)
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(target, view[:READY_BYTES]) :]


async def _ready(number: int, *, is_write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if is_write else (loop.add_reader, loop.remove_reader)
    try:
        add(number, _tell, ready)
    except PermissionError:
        return  # epoll refuses plain files and /dev/null, which never make anybody wait
    try:
        await ready
    finally:
        remove(number)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
