from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from moat import __version__
from moat.api.errors import MoatError
from moat.cli import main
from moat.plugins.manager import Plugins

from core.plugins.plugin import a_plugin

MOAT = Path(sys.executable).with_name("moat")


def use(monkeypatch: pytest.MonkeyPatch, *commands: click.Command) -> None:
    """Let a plugin add these commands, and be the only one."""

    def register(cli: click.Group) -> None:
        for command in commands:
            cli.add_command(command)

    plugin = a_plugin("hello", moat_register_commands=register)
    monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls([plugin])))


def failing(failure: BaseException) -> click.Command:
    def callback() -> None:
        raise failure

    return click.Command("hello", callback=callback)


def test_the_program_tells_its_version() -> None:
    assert (
        subprocess.run([MOAT, "--version"], capture_output=True, text=True, check=True).stdout
        == f"moat {__version__}\n"
    )


def test_help_lists_every_command_without_importing_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0

    shown = capsys.readouterr().out
    for name, lazy in main.COMMANDS.items():
        assert f"  {name} " in shown
        assert lazy.summary in shown


@pytest.mark.parametrize("name", ["grant", "plugins"])
def test_the_table_says_what_the_command_itself_says(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)

    assert command is not None
    assert command.get_short_help_str(200) == main.COMMANDS[name].summary


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["gran"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'gran'\nhint: run: moat grant\n"

    assert main.run(["zzz"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'zzz'\nhint: run: moat --help\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bogus"], "error: no such option"),
        (["plugins", "list", "extra"], "error: got unexpected extra argument"),
        (["grant", "show"], "error: missing argument 'NAME'"),
        (["run", "--name"], "error: option '--name' requires an argument"),
    ],
)
def test_wrong_usage_is_an_error_a_hint_and_exit_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2

    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(told)
    words = [word for word in arguments if word in ("plugins", "list", "grant", "show", "run")]
    assert hint == f"hint: run: {' '.join(['moat', *words])} --help"


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["grant"])

    out, err = capsys.readouterr()
    assert "Usage: moat grant" in out + err


def test_an_error_of_ours_is_printed_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, failing(MoatError("it broke", hint="run: moat doctor", exit_code=7)))

    assert main.run(["hello"]) == 7
    assert capsys.readouterr().err == "error: it broke\nhint: run: moat doctor\n"


def test_anything_else_is_a_bug_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, failing(ZeroDivisionError("bug")))

    with pytest.raises(ZeroDivisionError):
        main.run(["hello"])


def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, click.Command("hello", callback=lambda: 42), click.Command("quiet", callback=lambda: None))

    assert main.run(["hello"]) == 42
    assert main.run(["quiet"]) == 0


def test_ctrl_c_is_130_and_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, failing(KeyboardInterrupt()))

    assert main.run(["hello"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_commands_of_plugins_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, click.Command("hello", help="Say hello."))

    main.run(["--help"])

    assert re.search(r"^  hello +Say hello\.$", capsys.readouterr().out, re.MULTILINE)


def test_a_plugin_that_takes_a_built_in_name_is_told_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, click.Command("run", help="Evil."))

    assert main.run(["--help"]) == 0

    out, err = capsys.readouterr()
    assert "Evil" not in out
    assert "the command 'run' is claimed by moat-core and by moat-provider-hello" in err


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with os.fdopen(writing, "wb") as broken:
        done = subprocess.run([MOAT, "plugins"], stdout=broken, stderr=subprocess.PIPE, env=env, check=False)

    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize("words", ["--help", "--version", "run --help"])
def test_words_of_its_own_that_the_disk_does_not_take_are_one_line(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([MOAT, *words.split()], stdout=full, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr) == (1, b"error: the output cannot be written: No space left on device\n")


def test_a_full_disk_elsewhere_is_not_taken_for_the_output_s(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, failing(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(OSError, match="No space left"):
        main.run(["hello"])


def test_a_terminal_that_cannot_show_a_character_is_no_error(tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}

    done = subprocess.run([MOAT, "✓"], env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "there is no command" in done.stderr


@pytest.mark.parametrize("flag", ["-u", "-Xdev"])  # the second exits as Python does
def test_its_end_loses_nothing_that_was_to_be_done(flag: str) -> None:
    script = """
import atexit, sys, threading, time
from moat.cli import main
atexit.register(print, "at exit")
main.run = lambda arguments: print(arguments) or 7
sys.argv[1:] = ["hello"]
if sys.stdin.read() == "with a thread":
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
main.main()
"""
    for said, expected in (("", "['hello']\nat exit\n"), ("with a thread", "['hello']\nthread\nat exit\n")):
        done = subprocess.run(
            [sys.executable, flag, "-c", script], input=said, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, expected, "")


def test_help_does_not_import_asyncio_which_is_slow() -> None:
    script = "import sys; from moat.cli import main; main.run(['--help']); sys.exit('asyncio' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0
