from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually, installation


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


def start(moat: Installation, name: str, script: str) -> None:
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", name, "--", "sh", "-c", script)


def in_front(moat: Installation, name: str) -> subprocess.Popen[bytes]:
    command = ("sh", "-c", "echo up; exec sleep 600")
    process = moat.start("run", "work", "--runtime", "process", "--name", name, "--", *command)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_stop_kills_what_does_not_end_in_time(moat: Installation) -> None:
    start(moat, "deaf", "trap '' TERM; echo deaf; while :; do sleep 0.05; done")
    eventually("it hears nothing", lambda: moat.ok("logs", "deaf") == "deaf\n")

    assert moat.ok("stop", "-t", "0.2", "deaf") == "deaf\n"

    done = moat.run("wait", "--json", "deaf")
    assert done.returncode == 137
    (ended,) = json.loads(done.stdout)
    assert (ended["name"], ended["state"], ended["exit_code"]) == ("deaf", "stopped", 137)


def test_stop_takes_several_and_refuses_all_when_one_is_wrong(moat: Installation) -> None:
    start(moat, "one", "exec sleep 600")
    start(moat, "two", "exec sleep 600")

    wrong = moat.run("stop", "one", "nobody")
    assert (wrong.returncode, wrong.stdout) == (1, b"")
    assert b"no run is called 'nobody'" in wrong.stderr

    assert moat.ok("stop", "one", "two") == "one\ntwo\n"
    again = moat.run("stop", "one")
    assert again.returncode == 2
    assert b"one has ended" in again.stderr


def test_stop_reaches_a_run_in_the_foreground_too(moat: Installation) -> None:
    process = moat.start(
        "run", "work", "--runtime", "process", "--name", "front", "--", "sh", "-c", "echo up; exec sleep 600"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    moat.ok("stop", "front")

    process.communicate(timeout=30)
    assert process.returncode == 128 + 15


def test_wait_hears_of_the_end_of_a_live_run(moat: Installation) -> None:
    start(moat, "short", "while [ ! -e go ]; do sleep 0.05; done; exit 6")
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(moat.run("wait", "short").returncode))
    waiting.start()

    (moat.home / "work" / "go").touch()

    waiting.join(60)
    assert codes == [6]


def test_attach_shows_a_run_without_a_terminal_and_ends_with_its_code(moat: Installation) -> None:
    start(moat, "seen", "echo before; while [ ! -e on ]; do sleep 0.05; done; echo err >&2; exit 3")
    process = moat.start("attach", "seen")
    assert process.stdout is not None
    assert process.stdout.readline() == b"before\n"

    (moat.home / "work" / "on").touch()

    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert b"err\n" in err
    assert b"moat: seen" in err


def test_attach_to_a_run_in_the_foreground_is_refused_with_a_way(moat: Installation) -> None:
    process = moat.start(
        "run", "work", "--runtime", "process", "--name", "held", "--", "sh", "-c", "echo up; exec sleep 600"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    done = moat.run("attach", "held")

    assert done.returncode == 1
    assert b"belongs to the command that started it" in done.stderr
    assert b"moat run -d" in done.stderr
    moat.ok("stop", "held")
    process.communicate(timeout=30)
