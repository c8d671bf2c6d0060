"""What `moat exec` refuses. In live containers: tests/integration/test_exec.py."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.installation import Installation, end, installation


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


def test_the_command_must_stand_after_dashes(moat: Installation) -> None:
    done = moat.run("exec", "some-run")

    assert done.returncode == 2
    assert b"run: moat exec some-run -- COMMAND" in done.stderr


def test_a_terminal_that_is_wanted_must_be_there(moat: Installation) -> None:
    done = moat.run("exec", "-t", "some-run", "--", "true")

    assert done.returncode == 2
    assert b"the input is no terminal" in done.stderr


def test_a_run_that_is_over_or_unknown_is_an_error(moat: Installation) -> None:
    moat.ok("run", "work", "--runtime", "process", "--name", "over", "--", "true")

    over, unknown = moat.run("exec", "over", "--", "true"), moat.run("exec", "nobody", "--", "true")

    assert (over.returncode, unknown.returncode) == (2, 1)
    assert b"over has ended" in over.stderr
    assert b"no run is called 'nobody'" in unknown.stderr


@pytest.mark.parametrize("runtime", ["process", pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def test_a_runtime_that_cannot_promise_the_same_seal_refuses(moat: Installation, runtime: str) -> None:
    name = f"refusing-{runtime}"
    words = ("run", "work", "--runtime", runtime, "--name", name, "--", "sh", "-c", "echo up; exec sleep 600")
    process = moat.start(*words, env={"MOAT_BUBBLEWRAP_GATE": "inside"})  # outside of which nobody stands then
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"

        done = moat.run("exec", name, "--", "touch", "/workspace/was-here")

        assert (done.returncode, done.stdout) == (1, b"")
        assert b"cannot start another command in a live run under the same seal" in done.stderr
        assert not (moat.home / "work" / "was-here").exists()
        assert (
            next(each["state"] for each in json.loads(moat.ok("list", "--json")) if each["name"] == name) == "running"
        )
    finally:
        moat.ok("stop", "-t", "0", name)
        end(process)
