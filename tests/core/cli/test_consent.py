from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.cli.consent import settle, with_yes
from moat.paths import Home
from moat.runs.approvals import Question, approve, is_approved

from core.runs.projects import a_checkout

QUESTION = Question(a_checkout("grants: [github]"), ("spend your credential github", "read /etc, as /e"))


class Terminal:
    """A terminal with somebody at the other end, who answers once there is a question: when it is read."""

    def __init__(self) -> None:
        self.person, self._inside = os.openpty()
        self._files = [os.fdopen(os.dup(self._inside), mode) for mode in ("r", "w")]
        self._answer = ""

    def answering(self, answer: str, monkeypatch: pytest.MonkeyPatch, *, typed_before: str = "") -> None:
        """Put the terminal in place of this process's own; in a test, since pytest sets the streams for each phase."""
        real = os.read

        def read(descriptor: int, size: int) -> bytes:
            os.write(self.person, self._answer.encode())
            self._answer = ""
            return real(descriptor, size)

        self._answer = answer
        os.write(self.person, typed_before.encode())
        monkeypatch.setattr(os, "read", read)
        monkeypatch.setattr(sys, "stdin", self._files[0])
        monkeypatch.setattr(sys, "stderr", self._files[1])

    def close(self) -> None:
        for file in self._files:
            file.close()
        os.close(self._inside)
        os.close(self.person)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_what_asks_for_nothing_is_never_asked_about(home: Home) -> None:
    settle(Question(QUESTION.checkout, ()), home, is_given=False, env={})

    assert not home.root.exists()


def test_without_a_terminal_it_is_an_error_that_shows_everything_and_what_to_type(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["moat", "run"])

    with pytest.raises(UsageError, match="needs your yes") as refusal:
        settle(QUESTION, home, is_given=False, env={})

    shown = capsys.readouterr().err
    assert "  1. spend your credential github\n  2. read /etc, as /e\n" in shown
    assert "moat run --yes" in refusal.value.hint
    assert not is_approved(home, QUESTION)


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        pytest.param("run", "moat run --yes", id="a run of the file's command"),
        pytest.param("codex . -p hello", "moat codex . -p hello --yes", id="an agent"),
        pytest.param("image build work", "moat image build work --yes", id="a command of two words"),
        pytest.param("run -d -- make -e A=b", "moat run -d --yes -- make -e A=b", id="what stands after the dashes"),
        pytest.param("run -e A=s3cr3t -eB=s3cr3t --env=C=s3cr3t --env D=s3cr3t -e -e",
                     "moat run -e A=... -eB=... --env=C=... --env D=... -e -e=... --yes", id="no value of a variable"),
    ],
)  # fmt: skip
def test_the_command_that_was_typed_is_to_be_typed_again(typed: str, again: str) -> None:
    assert with_yes(typed.split()) == again


def test_a_prompt_is_said_again_as_a_shell_takes_it_and_not_at_length() -> None:
    assert with_yes(["claude", "-p", "make it\x1b[2J so"]) == r"moat claude -p 'make it\x1b[2J so' --yes"
    assert with_yes(["claude", "-p", "x" * 500]) == f"moat claude -p {'x' * 200}... --yes"


def test_yes_as_an_option_is_shown_what_it_grants_and_is_remembered(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    settle(QUESTION, home, is_given=True, env={})

    assert "spend your credential github" in capsys.readouterr().err
    assert is_approved(home, QUESTION)


def test_who_has_said_yes_is_not_asked_again(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    approve(home, QUESTION)

    settle(QUESTION, home, is_given=False, env={})

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " YES \n"])
def test_a_clear_yes_is_one(home: Home, terminal: Terminal, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.answering(answer, monkeypatch)

    settle(QUESTION, home, is_given=False, env={})

    assert is_approved(home, QUESTION)


@pytest.mark.parametrize("answer", ["\n", "n\n", "yeah\n", "no\ny\n", "\x04"])
def test_anything_else_is_none(home: Home, terminal: Terminal, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.answering(answer, monkeypatch)

    with pytest.raises(UsageError, match="nothing was run"):
        settle(QUESTION, home, is_given=False, env={})

    assert not is_approved(home, QUESTION)


def test_what_was_typed_before_the_question_is_no_answer(
    home: Home, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.answering("n\n", monkeypatch, typed_before="y\n")

    with pytest.raises(UsageError, match="nothing was run"):
        settle(QUESTION, home, is_given=False, env={})


def test_who_does_not_want_to_be_asked_is_not(home: Home, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.answering("y\n", monkeypatch)

    with pytest.raises(UsageError, match="needs your yes"):
        settle(QUESTION, home, is_given=False, env={"MOAT_NO_PROMPT": "1"})


def test_an_answer_that_cannot_be_remembered_holds_for_now(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.root.mkdir(mode=0o700)
    home.approvals.touch()

    settle(QUESTION, home, is_given=True, env={})

    assert "cannot be remembered" in capsys.readouterr().err
