"""Looks at a supervised run from a command line: its output here, keys and signals there, until it ends or we leave.

    host's terminal ──raw──▶ keys ─── frames ───▶ supervisor ──▶ the run's terminal
                    ◀────── screen ◀─ frames ───

The terminal is always put back. Output is written as it comes; a terminal that is slow makes the run wait, as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import termios
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from moat.api.errors import MoatError, SandboxFailed
from moat.api.runtimes import Stdio
from moat.frames import TAIL, FrameChannel, FrameError, Message
from moat.runs.attach import terminal_size, write_all
from moat.runs.interrupt import STOPPING

DETACH_KEYS = b"\x10\x11"  # Ctrl-P Ctrl-Q, as `docker attach` has them
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Sight:
    """How looking ended: the run "ended" with a code, or it goes on and we have "left"."""

    how: Literal["ended", "left"]
    code: int = 0


class RunFailed(MoatError):
    """The run could not be started or held; what its supervisor said. exit_code: as it said."""


class DetachKeys:
    """Finds the keys that mean "leave" in what is typed. The first of them waits for the second."""

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        self._keys = keys
        self._seen = 0

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what is to be typed on, and whether the user wants to leave; what follows that is dropped."""
        on = bytearray()
        for key in typed:
            if key == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(on), True
                continue
            on += self._keys[: self._seen]
            self._seen = 1 if key == self._keys[0] else 0
            if not self._seen:
                on.append(key)
        return bytes(on), False


class Viewer:
    """One client of a run's control socket. sealed: called once, with the caveat, when the run begins.

    told: called with lines about what the run waits for before that, and about what else went wrong at its end.
    types: keys are the run's, if there is a terminal here. Where they are not, Ctrl-C is a signal for the run.
    """

    def __init__(
        self,
        sock: socket.socket,
        stdio: Stdio,
        sealed: Callable[[str], None] | None = None,
        told: Callable[[str], None] = lambda _: None,
        *,
        types: bool = True,
    ) -> None:
        self._types = types
        self._sock = sock
        self._stdio = stdio
        self._sealed = sealed
        self._told = told
        self._detach = DetachKeys()
        self._has_left = False
        self._has_begun = False
        self._late: list[str] = []
        self._stack = contextlib.ExitStack()
        self._begin: Callable[[], None] = lambda: None

    async def follow(self, *, attach: bool = True, until_sealed: bool = False) -> Sight:
        """Look until the run ends or the user leaves. attach: to its output and keys. until_sealed: leave once it is.

        Raises RunFailed with what the supervisor says, SandboxFailed when the supervisor is gone.
        """
        channel = FrameChannel(self._sock)
        try:
            ask: Message = {"ask": "wait"}
            if attach:
                rows, columns = terminal_size(self._stdio) or (24, 80)
                ask = {"ask": "attach", "rows": rows, "columns": columns}
                self._begin = lambda: self._stack.enter_context(self._typing(channel))
            channel.send(ask)
            with self._stack, self._signals(channel):
                return await self._hear(channel, until_sealed=until_sealed)
        finally:
            channel.close()
            for line in self._late:
                self._told(line)

    async def _hear(self, channel: FrameChannel, *, until_sealed: bool) -> Sight:
        try:
            while (received := await channel.receive()) is not None:
                sight = self._heard(received[0])
                if sight is not None or (until_sealed and received[0].get("event") == "sealed"):
                    return sight or Sight("left")
        except OSError:
            return Sight("left")  # the terminal is gone, or who read our output
        except (FrameError, KeyError, TypeError, ValueError):
            raise SandboxFailed("the run's supervisor speaks another protocol", hint="run: moat list") from None
        if self._has_left:
            return Sight("left")
        raise SandboxFailed("the run's supervisor is gone; the run is stopped", hint="run: moat list")

    def _tell(self, line: str) -> None:
        """Tell a line, once the terminal is as it was: while the run has it, it is the run's."""
        if self._has_begun:
            self._late.append(line)
        else:
            self._told(line)

    def _is_sealed(self, caveat: str) -> None:
        self._has_begun = True
        if self._sealed is not None:
            self._sealed(caveat)
        self._begin()  # not before: until then Ctrl-C cancels, and our own lines want a terminal as it was

    def _heard(self, message: Message) -> Sight | None:
        if stream := message.get("stream"):
            write_all(self._stdio.stderr if stream == "stderr" else self._stdio.stdout, message[TAIL])
            return None
        match message.get("event"):
            case "told":
                self._tell(str(message["line"]))
            case "sealed":
                self._is_sealed(str(message["caveat"]))
            case "ended":
                return Sight("ended", int(message["code"]))
            case "failed":
                code = int(message["code"])
                raise RunFailed(str(message["problem"]), hint=str(message["hint"]), exit_code=code)
            case "crashed":
                raise SandboxFailed(f"the run's supervisor failed:\n{message['traceback']}", hint="this is a bug")
            case "refused":
                problem = "its output belongs to the command that started it"
                raise RunFailed(problem, hint="start runs to attach to with: moat run -d")
        return None

    @contextlib.contextmanager
    def _signals(self, channel: FrameChannel) -> Iterator[None]:
        """Hand Ctrl-C, SIGTERM and the window's size on. SIGHUP is ours alone: the terminal goes, the run goes on."""
        loop = asyncio.get_running_loop()
        handed = [each for each in STOPPING if each != signal.SIGHUP and signal.getsignal(each) is not signal.SIG_IGN]
        for number in handed:
            loop.add_signal_handler(number, channel.send, {"signal": int(number)})
        loop.add_signal_handler(signal.SIGHUP, self._leave, channel)
        loop.add_signal_handler(signal.SIGWINCH, self._resize, channel)
        try:
            yield
        finally:
            for taken in (*handed, signal.SIGHUP, signal.SIGWINCH):
                loop.remove_signal_handler(taken)

    def _leave(self, channel: FrameChannel) -> None:
        self._has_left = True
        channel.close()

    def _resize(self, channel: FrameChannel) -> None:
        if size := terminal_size(self._stdio):
            channel.send({"resize": list(size)})

    @contextlib.contextmanager
    def _typing(self, channel: FrameChannel) -> Iterator[None]:
        stdin = self._stdio.stdin
        if not self._types or not _is_ours(stdin):
            yield
            return
        loop = asyncio.get_running_loop()
        saved: list[Any] = termios.tcgetattr(stdin)
        tty.setraw(stdin, termios.TCSANOW)
        loop.add_reader(stdin, self._typed, channel)
        loop.add_signal_handler(signal.SIGCONT, tty.setraw, stdin, termios.TCSANOW)  # a shell put it back meanwhile
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCONT)
            loop.remove_reader(stdin)
            with contextlib.suppress(termios.error):  # the terminal may be gone: its window was closed
                termios.tcsetattr(stdin, termios.TCSANOW, saved)

    def _typed(self, channel: FrameChannel) -> None:
        try:
            typed = os.read(self._stdio.stdin, _CHUNK)
        except OSError:
            typed = b""
        keys, wants_to_leave = self._detach.take(typed)
        if keys:
            channel.send({"keys": len(keys), TAIL: keys})
        if wants_to_leave or not typed:
            self._leave(channel)


def _is_ours(stdin: int) -> bool:
    """Whether keys are ours to read. A job in the background would be stopped for touching the terminal."""
    try:
        return os.isatty(stdin) and os.tcgetpgrp(stdin) == os.getpgrp()
    except OSError:
        return False  # a terminal that is not our controlling one
