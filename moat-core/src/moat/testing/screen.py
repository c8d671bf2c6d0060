"""A terminal window with one command in it, for tests: typed into, read, resized, and looked at afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence

LIMIT_S = 30.0
SIZE = (33, 99)
# A new session whose controlling terminal this is: what a terminal window does for a shell.
_STARTER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Screen:
    """One command in a terminal of SIZE rows and columns. Close it: the command is ended."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._user, self._shell = os.openpty()
        termios.tcsetwinsize(self._user, SIZE)
        self._before = termios.tcgetattr(self._shell)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _STARTER, *command], stdin=self._shell, stdout=self._shell, stderr=self._shell,
            env={**env, "TERM": "xterm"}, start_new_session=True,
        )  # fmt: skip

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal has the settings that it had before the command."""
        return termios.tcgetattr(self._shell) == self._before

    def type(self, keys: str) -> None:
        """Type."""
        os.write(self._user, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the command in front is told, as the kernel does."""
        termios.tcsetwinsize(self._user, (rows, columns))
        self.process.send_signal(signal.SIGWINCH)

    def read_until(self, text: str) -> str:
        """Return what is shown, up to text and whatever came with it. Raises AssertionError when it never comes."""
        seen, limit = b"", time.monotonic() + LIMIT_S
        while text.encode() not in seen:
            if time.monotonic() > limit:
                raise AssertionError(f"waited in vain for {text!r}: {seen!r}")
            if select.select([self._user], [], [], 0.1)[0]:
                seen += os.read(self._user, 65_536)
        return seen.decode(errors="replace")

    def close(self) -> None:
        """End the command and take the terminal away."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._user)
        os.close(self._shell)
