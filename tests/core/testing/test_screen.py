from __future__ import annotations

import os

import pytest
from moat.testing import screen
from moat.testing.screen import Screen

ENV = {"PATH": os.defpath}
# A signal may break a shell's `read` off: then it reads once more.
ECHO = "trap 'stty size' WINCH; stty size; while sleep 0; do read line && echo got $line; done"


def test_a_command_is_typed_into_and_resized() -> None:
    window = Screen(["sh", "-c", ECHO], ENV)
    try:
        window.read_until("33 99")
        window.resize(44, 111)
        window.type("\r")
        window.read_until("44 111")
        window.type("h''i\r")
        window.read_until("got h''i")
    finally:
        window.close()

    assert window.process.returncode is not None


def test_a_command_that_spoils_the_terminal_is_found_out() -> None:
    window = Screen(["sh", "-c", "stty raw"], ENV)
    try:
        assert window.process.wait(screen.LIMIT_S) == 0
        assert not window.is_as_before
    finally:
        window.close()


def test_what_never_comes_is_an_error_that_shows_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Screen(["sh", "-c", "echo this; sleep 600"], ENV)
    try:
        window.read_until("this")
        monkeypatch.setattr(screen, "LIMIT_S", 0.05)
        with pytest.raises(AssertionError, match="waited in vain for 'that'"):
            window.read_until("that")
    finally:
        window.close()
