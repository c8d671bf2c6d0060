"""A supervisor is a real process here, its run a process of the host's: what it is told, and what outlives it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, eventually, installation
from support.supervisors import read, supervisor_of


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


def start(moat: Installation, name: str, script: str, *options: str) -> str:
    words = ("run", "-d", *options, "work", "--runtime", "process", "--name", name, "--", "sh", "-c", script)
    assert moat.ok(*words).strip() == name
    return name


def info(moat: Installation, name: str) -> dict[str, object]:
    listed = json.loads(moat.ok("list", "--json"))
    return next(each for each in listed if each["name"] == name)


def test_a_run_outlives_the_command_that_started_it_and_is_over_when_its_command_is(moat: Installation) -> None:
    name = start(
        moat, "outlives", "read x < /dev/null; echo out; echo err >&2; while [ ! -e go ]; do sleep 0.05; done; exit 9"
    )
    assert info(moat, name)["state"] == "running"

    (moat.home / "work" / "go").touch()

    assert moat.run("wait", name).returncode == 9
    assert (info(moat, name)["state"], info(moat, name)["exit_code"]) == ("stopped", 9)
    done = moat.run("logs", name)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_it_has_a_session_of_its_own_and_nothing_of_the_callers_terminal_or_files(moat: Installation) -> None:
    name = start(moat, "apart", "exec sleep 600")
    pid = supervisor_of(name)

    links = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
    assert links == [os.devnull] * 3
    moat.ok("stop", name)
    eventually("the supervisor is gone", lambda: not read(Path(f"/proc/{pid}/cmdline")))  # also of a zombie


def test_its_stop_is_the_commands_sigterm(moat: Installation) -> None:
    name = start(moat, "asked", "trap 'echo asked; exit 4' TERM; echo up; while :; do sleep 0.05; done")
    eventually("it listens", lambda: moat.run("logs", name).stdout == b"up\n")

    assert moat.ok("stop", name).strip() == name

    assert info(moat, name)["exit_code"] == 4
    assert moat.run("logs", name).stdout == b"up\nasked\n"


def test_what_cannot_be_started_is_told_to_the_caller_and_is_no_run(moat: Installation) -> None:
    done = moat.run("run", "-d", "work", "--runtime", "process", "--name", "never", "--", "/no/such/command")

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"error: /no/such/command cannot be started: No such file or directory" in done.stderr
    assert info(moat, "never")["state"] == "stopped"


def test_a_mistake_in_the_supervisor_is_not_swallowed(moat: Installation) -> None:
    inside = moat.home / ".moat" / "inside"
    kept = inside.rename(inside.with_name("kept")) if inside.exists() else None
    inside.write_text("in the way")

    done = moat.run("run", "-d", "work", "--runtime", "process", "--name", "crashed", "--", "true")

    assert done.returncode == 1
    assert b"FileExistsError" in done.stderr
    inside.unlink()
    if kept is not None:
        kept.rename(inside)


def test_a_run_that_is_not_sealed_ends_with_the_daemon_that_was_stopped_on_purpose(moat: Installation) -> None:
    name = start(moat, "unkept", "trap 'echo asked; exit 1' TERM; echo up; while :; do sleep 0.05; done")
    eventually("it listens", lambda: moat.run("logs", name).stdout == b"up\n")
    pid = supervisor_of(name)

    moat.ok("proxy", "stop")

    eventually("the supervisor is gone", lambda: not read(Path(f"/proc/{pid}/cmdline")))
    assert moat.run("logs", name).stdout == b"up\nasked\n"
