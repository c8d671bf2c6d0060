"""Asks whoever holds a run to start one more command in it, and looks after it from a command line.

our descriptors ──▶ holder of the run ──▶ sandbox      a pipe stays that pipe; a terminal is lent, as for `moat run`
our signals     ──▶
                ◀── exit code
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

from moat.api.errors import SandboxFailed
from moat.frames import FrameChannel, FrameError, Message
from moat.runs.attach import Attachment
from moat.runs.interrupt import STOPPING
from moat.runs.viewer import RunFailed

RUN_ENDED = 128 + signal.SIGKILL  # a command in a run that ends is killed


async def execute(
    sock: socket.socket, argv: tuple[str, ...], attachment: Attachment, terminal: tuple[int, int] | None
) -> int:
    """Have argv started by the run's holder at sock, and return its exit code. terminal: its size, None for none.

    Raises RunFailed with what the holder says, SandboxFailed when it is gone or does not know how.
    """
    channel = FrameChannel(sock)
    try:
        with attachment, _signals(channel, attachment):
            stdio = attachment.stdio
            channel.send({"ask": "exec", "argv": argv, "size": terminal}, (stdio.stdin, stdio.stdout, stdio.stderr))
            return await _heard(channel, attachment)
    finally:
        channel.close()


async def _heard(channel: FrameChannel, attachment: Attachment) -> int:
    last: Message = {}
    try:
        while (received := await channel.receive()) is not None:
            last = received[0]
            match last["event"]:
                case "started":
                    attachment.begin()
                case "exited":
                    return int(last["code"])
                case "failed":
                    raise RunFailed(str(last["problem"]), hint=str(last["hint"]), exit_code=int(last["code"]))
                case "sealed":
                    raise KeyError("what a holder says that knows no exec")
    except (FrameError, KeyError, TypeError, ValueError):
        problem = "the run was started by another version of moat, which starts no more commands in it"
        raise SandboxFailed(problem, hint="start the run again") from None
    if last.get("event") in ("ended", "crashed"):
        return RUN_ENDED
    raise SandboxFailed("whoever holds the run is gone; the run is stopped", hint="run: moat list")


@contextlib.contextmanager
def _signals(channel: FrameChannel, attachment: Attachment) -> Iterator[None]:
    """Hand Ctrl-C, SIGTERM and the window's size on, a second Ctrl-C as SIGKILL. SIGHUP: we go, and so does it."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def hand_on(number: int) -> None:
        channel.send({"signal": int(signal.SIGKILL if seen else number)})
        seen.append(number)

    def resized() -> None:
        if size := attachment.resize():
            channel.send({"resize": list(size)})

    taken = [each for each in (*STOPPING, signal.SIGWINCH) if signal.getsignal(each) is not signal.SIG_IGN]
    for each in taken:
        if each == signal.SIGWINCH:
            loop.add_signal_handler(each, resized)
        else:
            loop.add_signal_handler(each, hand_on, each)
    try:
        yield
    finally:
        for each in taken:
            loop.remove_signal_handler(each)
