"""A terminal window with a `moat` command in it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.installation import Installation, end

DEADLINE_S = 30.0
QUIET_S, REPEAT_S = 0.5, 3.0  # between what a person types


class Terminal:
    """A terminal with one `moat` command in front, as a person has it. redirect: as a shell writes it.

    program: another one, with the words as its arguments.
    """

    def __init__(self, moat: Installation, *words: str, redirect: str = "", program: str = "", **env: str) -> None:
        self.user, self.shell = os.openpty()
        self.unread = b""
        termios.tcsetwinsize(self.user, (33, 99))
        self.before = termios.tcgetattr(self.shell)
        command = [program or str(moat.moat), *words]
        # A new session whose controlling terminal this is: what a terminal window does for a shell.
        starter = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            f"os.execvp('sh', ['sh', '-c', 'exec \"$@\" {redirect}', 'sh', *sys.argv[1:]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", starter, *command],
            stdin=self.shell, stdout=self.shell, stderr=self.shell, start_new_session=True,
            cwd=moat.home, env=moat.environment({"TERM": "xterm", **env}),
        )  # fmt: skip

    def type(self, text: str) -> None:
        os.write(self.user, text.encode())

    def read_until(self, text: str) -> str:
        """Return what came up to the end of `text`, and leave the rest for the next look: one read may bring both."""
        limit = time.monotonic() + DEADLINE_S
        while text.encode() not in self.unread:
            assert time.monotonic() < limit, f"waited in vain for {text!r}: {self.unread!r}"
            if select.select([self.user], [], [], 0.1)[0]:
                self.unread += os.read(self.user, 65_536)
        before, found, self.unread = self.unread.partition(text.encode())
        return (before + found).decode()

    def say(self, word: str, is_heard: Callable[[], bool]) -> None:
        """Type a word, then Return until it is heard: what comes at once with a word is taken for pasted text.

        Reads meanwhile: what writes to a terminal waits for who reads it.
        """
        limit = time.monotonic() + DEADLINE_S
        self.type(word)
        self._read_for(QUIET_S)
        while not is_heard():
            assert time.monotonic() < limit, f"{word!r} is not heard: {self.unread!r}"
            self.type("\r")
            self._read_for(REPEAT_S, is_heard)

    def _read_for(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and not is_enough():
            if select.select([self.user], [], [], 0.1)[0]:
                self.unread += os.read(self.user, 65_536)

    def close(self) -> None:
        end(self.process)
        os.close(self.user)
        os.close(self.shell)


@contextmanager
def terminal(moat: Installation, *words: str, redirect: str = "", program: str = "", **env: str) -> Iterator[Terminal]:
    opened = Terminal(moat, *words, redirect=redirect, program=program, **env)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def terminals_closed() -> Iterator[list[Terminal]]:
    """Close every terminal that a test put into the list."""
    opened: list[Terminal] = []
    try:
        yield opened
    finally:
        for each in opened:
            each.close()
