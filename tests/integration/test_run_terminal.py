"""`moat run` in a real terminal: a shell in the run behaves as it does outside, and the terminal is put back."""

from __future__ import annotations

import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, installation
from support.terminal import DEADLINE_S, Terminal, terminals_closed

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(90)]

FOR_EVER = "while :; do sleep 0.1; done"  # a shell acts on a signal between two commands


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


@pytest.fixture
def terminals(moat: Installation) -> Iterator[list[Terminal]]:
    with terminals_closed() as opened:
        yield opened


def in_terminal(terminals: list[Terminal], moat: Installation, *words: str, redirect: str = "") -> Terminal:
    command = ("run", "work", "--runtime", "bubblewrap", "--", *words)
    terminals.append(Terminal(moat, *command, redirect=redirect))
    return terminals[-1]


def test_a_shell_has_a_terminal_of_its_own_with_the_right_size(moat: Installation, terminals: list[Terminal]) -> None:
    terminal = in_terminal(terminals, moat, "bash", "--norc", "-i")
    terminal.read_until("$ ")

    terminal.type("test -t 0 && test -t 1 && test -t 2 && echo a ter''minal; stty size\r")

    assert "33 99" in terminal.read_until("33 99")
    terminal.type("exit 5\r")
    terminal.read_until("0 requests")
    assert terminal.process.wait(DEADLINE_S) == 5
    assert termios.tcgetattr(terminal.shell) == terminal.before


def test_ctrl_c_reaches_the_program_and_not_moat(moat: Installation, terminals: list[Terminal]) -> None:
    terminal = in_terminal(terminals, moat, "sh", "-c", "trap 'echo caught; exit 7' INT; echo re''ady; " + FOR_EVER)
    terminal.read_until("ready")

    terminal.type("\x03")

    terminal.read_until("caught")
    assert terminal.process.wait(DEADLINE_S) == 7


def test_a_window_that_is_resized_is_resized_inside(moat: Installation, terminals: list[Terminal]) -> None:
    terminal = in_terminal(terminals, moat, "bash", "-c", "trap 'stty size; exit' WINCH; echo re''ady; " + FOR_EVER)
    terminal.read_until("ready")

    termios.tcsetwinsize(terminal.user, (40, 120))

    terminal.read_until("40 120")


def test_the_hosts_terminal_cannot_be_reached_from_inside(moat: Installation, terminals: list[Terminal]) -> None:
    inside = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')"
    terminal = in_terminal(terminals, moat, "/usr/bin/python3", "-c", inside)

    assert "Error" in terminal.read_until("0 requests")


def test_sigterm_puts_the_terminal_back(moat: Installation, terminals: list[Terminal]) -> None:
    terminal = in_terminal(terminals, moat, "sh", "-c", "echo re''ady; exec sleep 600")
    terminal.read_until("ready")

    terminal.process.send_signal(signal.SIGTERM)

    assert terminal.process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal.shell) == terminal.before


def test_output_into_a_file_is_untouched_while_the_keyboard_is_a_terminal(
    moat: Installation, terminals: list[Terminal]
) -> None:
    out = moat.home / "out"
    terminal = in_terminal(terminals, moat, "sh", "-c", "read x; echo got $x; printf 'a\\nb'", redirect=f"> {out}")
    terminal.read_until("sealed")

    terminal.type("word\r")

    assert terminal.process.wait(DEADLINE_S) == 0
    assert Path(out).read_bytes() == b"got word\na\nb"


def test_a_run_that_is_to_have_no_terminal_has_none_and_ctrl_c_is_a_signal(
    moat: Installation, terminals: list[Terminal]
) -> None:
    script = "trap 'echo caught; exit 7' INT; test -t 0 || test -t 1 || test -t 2 || echo no''thing; " + FOR_EVER
    moat.file("plain/moat.yaml", "interactive: false\n")
    terminals.append(Terminal(moat, "run", "plain", "--runtime", "bubblewrap", "--", "sh", "-c", script))
    terminal = terminals[-1]
    terminal.read_until("nothing")

    terminal.type("\x03")

    terminal.read_until("caught")
    assert terminal.process.wait(DEADLINE_S) == 7
    assert termios.tcgetattr(terminal.shell) == terminal.before
