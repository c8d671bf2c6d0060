from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from moat.api.runtimes import Stdio
from moat.runs import attach
from moat.runs.attach import Attachment, own_terminal, terminal_size


@dataclass
class Screen:
    """A terminal as the user has it. user: the end where a person sits. shell: the end that programs get."""

    user: int
    shell: int

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            assert select.select([self.user], [], [], 5)[0], f"only {seen!r} came"
            seen += os.read(self.user, 4096)
        return seen


@pytest.fixture
def screen() -> Iterator[Screen]:
    user, shell = os.openpty()
    termios.tcsetwinsize(user, (33, 99))
    yield Screen(user, shell)
    os.close(user)
    os.close(shell)


@pytest.fixture
def in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test's terminal count as the controlling one, with us in front."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_without_a_terminal_the_descriptors_are_passed_untouched(file: int) -> None:
    host = Stdio(file, file, file)

    with Attachment(host) as attachment:
        attachment.begin()
        assert attachment.stdio == host
        assert attachment.resize() is None


def test_only_what_is_a_terminal_is_replaced(screen: Screen, file: int) -> None:
    with Attachment(Stdio(screen.shell, file, screen.shell)) as attachment:
        given = attachment.stdio

    assert given.stdout == file
    assert given.stdin == given.stderr
    assert given.stdin not in (screen.shell, screen.user)


def test_the_size_is_the_hosts(screen: Screen, file: int) -> None:
    assert terminal_size(Stdio(file, screen.shell, file)) == (33, 99)
    assert own_terminal(Stdio(file, screen.shell, file)) is None
    assert own_terminal(Stdio(screen.shell, file, file)) == (33, 99)

    with Attachment(Stdio(screen.shell, screen.shell, screen.shell)) as attachment:
        assert termios.tcgetwinsize(attachment.stdio.stdin) == (33, 99)
        termios.tcsetwinsize(screen.user, (40, 120))
        assert attachment.resize() == (40, 120)
        assert termios.tcgetwinsize(attachment.stdio.stdin) == (40, 120)


@pytest.mark.usefixtures("in_front")
def test_keys_and_screen_are_carried_raw_and_the_terminal_is_put_back(screen: Screen) -> None:
    before = termios.tcgetattr(screen.shell)

    with Attachment(Stdio(screen.shell, screen.shell, screen.shell)) as attachment:
        inside = os.dup(attachment.stdio.stdin)
        attachment.begin()
        assert not termios.tcgetattr(screen.shell)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        os.write(screen.user, b"hello\r")
        assert os.read(inside, 100) == b"hello\n"
        os.write(inside, b"answer\n")
        assert b"answer\r\n" in screen.read_until(b"answer\r\n")
        os.close(inside)

    assert termios.tcgetattr(screen.shell) == before


@pytest.mark.usefixtures("in_front")
def test_the_terminal_is_put_back_when_something_fails(screen: Screen) -> None:
    before = termios.tcgetattr(screen.shell)

    def fail() -> None:
        with Attachment(Stdio(screen.shell, screen.shell, screen.shell)) as attachment:
            attachment.begin()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert termios.tcgetattr(screen.shell) == before


def test_a_job_in_the_background_leaves_the_terminal_alone(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)
    before = termios.tcgetattr(screen.shell)

    with Attachment(Stdio(screen.shell, screen.shell, screen.shell)) as attachment:
        attachment.begin()
        assert termios.tcgetattr(screen.shell) == before


def test_lines_end_once_when_only_the_output_is_a_terminal(screen: Screen, file: int) -> None:
    with Attachment(Stdio(file, screen.shell, file)) as attachment:
        inside = os.dup(attachment.stdio.stdout)
        attachment.begin()
        os.write(inside, b"one\n")
        os.close(inside)
        seen = screen.read_until(b"\n")

    assert seen == b"one\r\n"


def test_the_last_bytes_are_shown_although_the_command_has_ended(screen: Screen, file: int) -> None:
    with Attachment(Stdio(file, screen.shell, file)) as attachment:
        inside = os.dup(attachment.stdio.stdout)
        os.write(inside, b"last words")
        os.close(inside)
        attachment.begin()

    assert screen.read_until(b"last words")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_descriptor_that_the_caller_closed_leads_nowhere(closed: str) -> None:
    code = (
        "import os; from moat.runs.attach import fill_closed; fill_closed();"
        "null = os.stat('/dev/null').st_rdev; status = [os.fstat(fd).st_rdev == null for fd in (0, 1, 2)];"
        "os._exit(sum(2**fd for fd in (0, 1, 2) if status[fd]))"
    )
    script = f'exec "$0" -c "$1" {closed}'

    done = subprocess.run(["/bin/sh", "-c", script, sys.executable, code], input=b"", capture_output=True, check=False)

    assert done.returncode == {"<&-": 1, ">&-": 2, "2>&-": 4, "<&- >&- 2>&-": 7}[closed], done.stderr


@pytest.mark.usefixtures("in_front")
def test_nothing_of_it_is_left_behind(screen: Screen) -> None:
    before = _open_files()

    with Attachment(Stdio(screen.shell, screen.shell, screen.shell)) as attachment:
        attachment.begin()

    assert _open_files() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("moat-")]


def test_an_end_that_somebody_holds_open_does_not_hold_us(
    screen: Screen, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "DRAIN_S", 0.01)

    with Attachment(Stdio(file, screen.shell, file)) as attachment:
        inside = os.dup(attachment.stdio.stdout)
        attachment.begin()

    os.close(inside)


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}
