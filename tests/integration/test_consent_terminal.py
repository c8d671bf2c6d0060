"""A person at a real terminal is asked, answers, and the command gets what is typed after that and nothing before."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.installation import Installation, end, installation

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(90)]
DEADLINE_S = 30.0
STARTER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A terminal with `moat run work` in front."""

    def __init__(self, made: Installation) -> None:
        self.person, shell = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(made.moat), "run", "work", "--runtime", "bubblewrap"],
            stdin=shell, stdout=shell, stderr=shell, start_new_session=True, cwd=made.home,
            env=made.environment({"TERM": "xterm", "MOAT_NO_PROMPT": ""}),
        )  # fmt: skip
        os.close(shell)

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())

    def read_until(self, text: str) -> str:
        seen, limit = b"", time.monotonic() + DEADLINE_S
        while text.encode() not in seen:
            assert time.monotonic() < limit, f"waited in vain for {text!r}: {seen!r}"
            if select.select([self.person], [], [], 0.1)[0]:
                seen += os.read(self.person, 65_536)
        return seen.decode()


@contextmanager
def terminal(made: Installation) -> Iterator[Terminal]:
    opened = Terminal(made)
    try:
        yield opened
    finally:
        end(opened.process)
        os.close(opened.person)


@pytest.fixture
def made() -> Iterator[Installation]:
    with installation() as made:
        script = 'cat /o/word; echo "line?"; read line; echo "got $line"'
        made.file("outside/word", "of the host\n")
        settings = {"command": ["sh", "-c", script], "mounts": [{"source": "../outside", "target": "/o"}]}
        made.file("work/moat.yaml", json.dumps(settings))
        yield made


def test_who_agrees_gets_the_run_and_is_asked_once(made: Installation) -> None:
    with terminal(made) as first:
        asked = first.read_until("[y/N] ")
        assert f"1. read and change {made.home.resolve()}/outside, as /o" in asked
        first.type("y\n")
        first.read_until("of the host")
        first.read_until("line?")
        first.type("typed\n")
        first.read_until("got typed")
        assert first.process.wait(timeout=DEADLINE_S) == 0

    with terminal(made) as second:
        assert "[y/N]" not in second.read_until("line?")


@pytest.mark.parametrize("answer", ["\n", "n\n", "\x04"], ids=["only Return", "no", "the end of input"])
def test_who_does_not_agree_gets_no_run(made: Installation, answer: str) -> None:
    with terminal(made) as opened:
        opened.read_until("[y/N] ")
        opened.type(answer)

        assert "nothing was run" in opened.read_until("--ignore-file")
        assert opened.process.wait(timeout=DEADLINE_S) == 2

    assert json.loads(made.ok("list", "--json")) == []


def test_who_leaves_by_ctrl_c_gets_no_run(made: Installation) -> None:
    with terminal(made) as opened:
        opened.read_until("[y/N] ")
        opened.type("\x03")

        assert opened.process.wait(timeout=DEADLINE_S) == 130

    assert json.loads(made.ok("list", "--json")) == []
