from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from moat.api.errors import MoatError
from moat.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in the test itself: pytest puts its own streams back between a fixture and its test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_results_go_to_stdout_and_our_words_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.show("result")
    output.say("word")
    output.warn("careful")
    output.show_error(MoatError("no token", hint="run: moat grant github"))
    output.show_error(MoatError("no hint"))

    out, err = capsys.readouterr()
    assert out == "result\n"
    assert err == "word\nwarning: careful\nerror: no token\nhint: run: moat grant github\nerror: no hint\n"


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({"a": [1, None], "b": "é\x1b"})

    assert json.loads(capsys.readouterr().out) == {"a": [1, None], "b": "é\x1b"}


def test_tables_are_aligned_without_trailing_space(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("NAME", "SOURCE"), [("github", "gh"), ("a", "")])

    assert capsys.readouterr().out == "NAME    SOURCE\ngithub  gh\na\n"


def test_a_row_of_a_table_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("COMMAND", "B"), [("sh -c 'a\nb'", "\t")])

    assert capsys.readouterr().out == "COMMAND       B\nsh -c 'a\\nb'  \\t\n"


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)

    assert output.styled("x", "red", io.StringIO()) == "x"
    assert output.styled("x", "red", terminal) == "\x1b[31mx\x1b[0m"

    monkeypatch.setenv("NO_COLOR", "1")
    assert output.styled("x", "red", terminal) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.styled("x", "red", terminal) == "x"


def test_our_own_styles_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)

    output.say(f"sealed {output.styled('✓', 'green', terminal)}")

    assert terminal.getvalue() == "sealed \x1b[32m✓\x1b[0m\n"


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[2J", "\r", "\x9b2J", "\u202e"], ids=repr)
def test_foreign_text_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    terminal = on_a_terminal(monkeypatch)

    output.show(f"a{text}b")
    output.show_table(("T",), [(text,)])

    assert terminal.getvalue().startswith("a\\")
    assert not set("\x1b\r\x07\x9b\u202e") & set(terminal.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", ""))


def test_line_breaks_and_tabs_stay(capsys: pytest.CaptureFixture[str]) -> None:
    output.show("a\n\tb")

    assert capsys.readouterr().out == "a\n\tb\n"


def with_full(stream: str, script: str) -> tuple[int, bytes]:
    """Return the exit code of the program that does script in the place of a run, and what its other stream got."""
    other = "stderr" if stream == "stdout" else "stdout"
    program = f"""
import sys
from moat.cli import output, run_start, start
def does(typed):
    {script}
    return 7
run_start.start = does
start.leave(start.run(None))"""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen([sys.executable, "-c", program], **{stream: full, other: subprocess.PIPE})  # type: ignore[call-overload] # by name
        out, err = process.communicate()
    return process.returncode, out if stream == "stderr" else err


@pytest.mark.parametrize("script", ["output.show('x')", "output.show_json([])", "output.show_table(('T',), ())"])
def test_a_result_that_the_disk_does_not_take_is_one_line(script: str) -> None:
    assert with_full("stdout", script) == (1, b"error: the output cannot be written: No space left on device\n")


def test_words_that_the_disk_does_not_take_change_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    script = "output.warn('x'); output.say('y'); output.show('result')"

    assert with_full("stderr", script) == (7, b"result\n")
