"""Lends the host's terminal to a run, which gets a pseudo-terminal of its own: bytes are carried between the two.

A descriptor that is no terminal is passed on untouched. The run is never given the host's terminal itself: whoever
holds it could read what is typed later and push characters into the shell. The host's terminal is always put back.

    host's terminal ──raw──▶ keys ──▶ pseudo-terminal ──▶ the run
                    ◀────── screen ◀──
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import tty
from types import TracebackType
from typing import Any

from moat.api.runtimes import Stdio

DRAIN_S = 2.0  # the screen's last bytes, after everything inside has ended
_CHUNK = 65_536
_INPUT, _OUTPUT = 0, 1  # where tcgetattr keeps the flags (termios(3))


def fill_closed() -> None:
    """Open /dev/null for each standard descriptor that the caller closed (`moat run … <&-`).

    Otherwise the next file of ours takes its number, and with it is given to the command.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def own_terminal(stdio: Stdio) -> tuple[int, int] | None:
    """Return rows and columns of the terminal that will control the run, None where nobody can type into it.

    A run that only prints to a terminal gets a pseudo-terminal too, but none that controls it.
    """
    return terminal_size(stdio) if os.isatty(stdio.stdin) else None


def terminal_size(stdio: Stdio) -> tuple[int, int] | None:
    """Return rows and columns of the first descriptor that is a terminal, or None where none is."""
    host = first_terminal(stdio.stdout, stdio.stderr, stdio.stdin)
    if host is None:
        return None
    size = os.get_terminal_size(host)
    return size.lines or 24, size.columns or 80  # some terminals say 0


class Attachment:
    """The run's three descriptors. Enter it; begin() once the run is sealed; leaving it restores the terminal."""

    def __init__(self, stdio: Stdio) -> None:
        self._host = stdio
        self._screen_fd = first_terminal(stdio.stdout, stdio.stderr, stdio.stdin)
        self._master = -1
        self._slave = -1
        self._stop: tuple[int, int] | None = None
        self._saved: list[Any] | None = None  # as termios gives it
        self._screen = threading.Thread(target=self._carry_screen, name="moat-screen", daemon=True)
        self._keys = threading.Thread(target=self._carry_keys, name="moat-keys", daemon=True)

    @property
    def stdio(self) -> Stdio:
        """What the command gets: the pseudo-terminal where the host's descriptor is one, else the host's own."""
        host = self._host
        if self._screen_fd is None:
            return host
        given = [self._slave if os.isatty(fd) else fd for fd in (host.stdin, host.stdout, host.stderr)]
        return Stdio(*given)

    def __enter__(self) -> Attachment:
        if self._screen_fd is not None:
            self._master, self._slave = os.openpty()
            self._stop = os.pipe()
            self._copy_settings(self._screen_fd)
            self.resize()
        return self

    def begin(self) -> None:
        """Carry bytes from now on. Our copy of the run's end stays open: a runtime may carry through it itself."""
        if self._screen_fd is None:
            return
        if self._is_typed_into():
            self._saved = termios.tcgetattr(self._host.stdin)
            tty.setraw(self._host.stdin, termios.TCSANOW)
            self._keys.start()
        self._screen.start()

    def resize(self) -> tuple[int, int] | None:
        """Give the pseudo-terminal the host's size and return it; None where there is no terminal."""
        size = terminal_size(self._host)
        if size is not None and self._master >= 0:
            termios.tcsetwinsize(self._master, size)
        return size

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slave >= 0:
            os.close(self._slave)  # the last copy, once everything inside has ended: the screen's end follows
        if self._screen.is_alive():
            self._screen.join(DRAIN_S)
        self._restore()
        if self._stop is not None:
            os.close(self._stop[1])  # wakes the thread that waits for keys
            if self._keys.is_alive():
                self._keys.join(DRAIN_S)
            self._close_unless_used(self._stop[0], self._keys)
            self._close_unless_used(self._master, self._screen)

    @staticmethod
    def _close_unless_used(descriptor: int, thread: threading.Thread) -> None:
        """Close descriptor, unless a thread is stuck with it: its number must not become another file's."""
        if not thread.is_alive():
            os.close(descriptor)

    def _restore(self) -> None:
        if self._saved is not None:
            with contextlib.suppress(termios.error):  # the terminal may be gone: its window was closed
                termios.tcsetattr(self._host.stdin, termios.TCSANOW, self._saved)
            self._saved = None

    def _is_typed_into(self) -> bool:
        """Whether keys are ours to read. A job in the background would be stopped for touching the terminal."""
        stdin = self._host.stdin
        try:
            return os.isatty(stdin) and os.tcgetpgrp(stdin) == os.getpgrp()
        except OSError:
            return False  # a terminal that is not our controlling one

    def _copy_settings(self, host: int) -> None:
        settings = termios.tcgetattr(host)
        if not os.isatty(self._host.stdin):
            settings[_OUTPUT] &= ~termios.OPOST  # the host's terminal, which stays as it is, ends lines itself
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)

    def _carry_screen(self) -> None:
        """Carry output until everything inside has closed its end (EIO on Linux, pty(7))."""
        assert self._screen_fd is not None  # noqa: S101 # the thread is started only then
        with contextlib.suppress(OSError):
            while data := os.read(self._master, _CHUNK):
                write_all(self._screen_fd, data)

    def _carry_keys(self) -> None:
        assert self._stop is not None  # noqa: S101 # the thread is started only then
        watched = [self._host.stdin, self._stop[0]]
        with contextlib.suppress(OSError):
            while self._stop[0] not in (ready := select.select(watched, [], [])[0]):
                if not ready or not (data := os.read(self._host.stdin, _CHUNK)):
                    return
                write_all(self._master, data)


def first_terminal(*descriptors: int) -> int | None:
    """Return the first descriptor that is a terminal, or None."""
    return next((fd for fd in descriptors if os.isatty(fd)), None)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data, however long that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
