"""A command in a run behaves as it does outside: exit code, the three streams, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from support.installation import eventually
from support.places import Place


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_commands(place: Place, code: int) -> None:
    assert place.run("sh", "-c", f"exit {code}").returncode == code


def test_a_command_that_a_signal_ends_exits_as_in_a_shell(place: Place) -> None:
    assert place.run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_a_program_that_does_not_exist_is_an_error_that_names_it(place: Place) -> None:
    done = place.run("no-such-program")

    assert done.returncode == 127
    assert b"no-such-program" in done.stderr


def test_standard_input_reaches_the_command_and_ends(place: Place) -> None:
    done = place.run("cat", input=b"x\n")

    assert done.stdout == b"x\n"


def test_standard_input_of_any_bytes_and_size_passes_unchanged(place: Place) -> None:
    data = bytes(range(256)) * 8_000

    assert place.run("cat", input=data).stdout == data


def test_standard_output_and_error_stay_apart(place: Place) -> None:
    done = place.run("sh", "-c", r"printf 'out\0\377'; printf 'err\0\376' >&2")

    assert done.stdout == b"out\0\377"
    assert b"err\0\376" in done.stderr
    assert b"out" not in done.stderr


def test_what_moat_says_goes_to_standard_error_in_two_lines(place: Place) -> None:
    said = place.run("true").stderr.decode().splitlines()

    assert [line.partition(" ")[0] for line in said] == ["moat:", "moat:"]
    assert "sealed ✓" in said[0]
    assert place.runtime in said[0]
    assert "github" in said[0]
    assert "0 requests" in said[1]


def test_ctrl_c_stops_the_command_and_exits_130(place: Place) -> None:
    run = _started(place, "echo ready; exec sleep 600")

    run.send_signal(signal.SIGINT)

    run.communicate(timeout=30)
    assert run.returncode == 130


def test_a_command_may_clean_up_after_ctrl_c(place: Place) -> None:
    run = _started(place, "trap 'echo cleaned; exit 5' INT; echo ready; while :; do sleep 0.1; done")

    run.send_signal(signal.SIGINT)

    out, _ = run.communicate(timeout=30)
    assert (out, run.returncode) == (b"cleaned\n", 5)


def test_nothing_of_a_stopped_run_is_left(place: Place) -> None:
    sleeping = f"sleep 54321.{os.getpid()}"
    run = _started(place, f"echo ready; exec {sleeping}")
    eventually("the command sleeps", lambda: _pids(sleeping))
    inside = _pids(sleeping)

    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=30)

    eventually("the command ends", _all_gone(inside))
    assert list((place.installation.home / ".moat" / "doors").glob("*")) == []
    assert list((place.installation.home / ".moat" / "inside").glob("*")) == []


def test_two_runs_at_once_share_nothing_but_the_daemon(place: Place) -> None:
    first, second = (_started(place, f"echo ready; cat; echo {name}", subprocess.PIPE) for name in ("one", "two"))

    assert second.communicate(b"", timeout=30)[0] == b"two\n"
    assert first.communicate(b"", timeout=30)[0] == b"one\n"


def _started(place: Place, script: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a script that prints `ready` first, and wait for that."""
    run = place.start("sh", "-c", script, stdin=stdin)
    assert run.stdout is not None
    line = run.stdout.readline()
    assert line == b"ready\n", run.communicate(timeout=30)
    return run


def _pids(command: str) -> list[int]:
    """Return the processes of this machine with that command line: those inside are seen from outside."""
    found = subprocess.run(["pgrep", "-f", "-x", command], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _all_gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110 # not a path of ours
