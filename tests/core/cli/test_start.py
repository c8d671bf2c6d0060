from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moat.api.errors import MoatError
from moat.cli import run_start, start
from moat.cli.run_options import Typed

PLAIN = Typed((), ("true",), {})


def ending(monkeypatch: pytest.MonkeyPatch, how: BaseException | int) -> int:
    """Return the exit code of a run that ends so."""

    def started(typed: Typed) -> int:
        assert typed is PLAIN
        if isinstance(how, BaseException):
            raise how
        return how

    monkeypatch.setattr(run_start, "start", started)
    return start.run(PLAIN)


def program(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program, and have it tell at its end whether it loaded click."""
    script = """
import atexit, sys
atexit.register(lambda: print("click" if "click" in sys.modules else "no click", file=sys.stderr))
from moat.cli.start import main
main()"""
    env = {"PATH": os.defpath, "HOME": str(home), "MOAT_HOME": str(home / "moat"), **env}
    argv = [sys.executable, "-c", script, *arguments]
    return subprocess.run(argv, env=env, cwd=home, capture_output=True, text=True, check=False)


def test_a_plain_run_ends_as_its_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, 0) == 0
    assert ending(monkeypatch, 7) == 7


def test_an_error_of_ours_is_printed_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, MoatError("it broke", hint="run: moat doctor", exit_code=9)) == 9
    assert capsys.readouterr().err == "error: it broke\nhint: run: moat doctor\n"


def test_anything_else_is_a_bug_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError("bug"))


@pytest.mark.parametrize("how", [KeyboardInterrupt(), EOFError()])
def test_ctrl_c_is_130_and_quiet(
    how: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, how) == 130
    assert capsys.readouterr().err == "\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_early_is_no_error(stream: str) -> None:
    script = f"""
import sys
from moat.cli import run_start, start
run_start.start = lambda typed: print("said", file=sys.{stream}, flush=True)
start.leave(start.run(None))"""
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    with os.fdopen(writing, "wb") as broken:
        done = subprocess.Popen([sys.executable, "-c", script], **{stream: broken, other: subprocess.PIPE})  # type: ignore[call-overload] # by name
        said = b"".join(done.communicate()[:1] if other == "stdout" else done.communicate()[1:])

    assert said == b""
    assert done.returncode == 1


def test_a_plain_run_loads_no_click_and_says_the_same(tmp_path: Path) -> None:
    plain = program("run", "--runtime", "none", "--", "true", home=tmp_path)
    by_click = program("run", "-eA=1", "--runtime", "none", "--", "true", home=tmp_path)

    assert plain.stderr.splitlines()[-1] == "no click"
    assert by_click.stderr.splitlines()[-1] == "click"
    assert plain.stderr.splitlines()[:-1] == by_click.stderr.splitlines()[:-1] != []
    assert plain.returncode == by_click.returncode == 2


def test_a_shell_that_asks_what_could_be_typed_is_not_a_run(tmp_path: Path) -> None:
    asked = program("run", "--runtime", "none", "--", "true", home=tmp_path, _MOAT_COMPLETE="bash_complete")

    assert "there is no runtime" not in asked.stderr


@pytest.mark.parametrize("flag", ["-u", "-Xdev"])  # the second exits as Python does
def test_its_end_loses_nothing_that_was_to_be_done(flag: str) -> None:
    script = """
import atexit, sys, threading, time
from moat.cli import start
atexit.register(print, "at exit")
print("said")
if sys.stdin.read() == "with a thread":
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
start.leave(7)
"""
    for said, expected in (("", "said\nat exit\n"), ("with a thread", "said\nthread\nat exit\n")):
        done = subprocess.run(
            [sys.executable, flag, "-c", script], input=said, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, expected, "")
