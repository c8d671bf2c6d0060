"""After a crash of the machine: a run's record says that it lives, and nobody is left who could say otherwise."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually, installation
from support.supervisors import supervisor_of

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(120)]
LOST = b"error: victim is lost: whoever held it was killed\nhint: run: moat logs victim\n"


@pytest.fixture
def moat() -> Iterator[Installation]:
    """An installation with a run that daemon and launcher died under, at once."""
    with installation() as made:
        made.file("work/file", "")
        command = ("sh", "-c", "echo ready; exec sleep 600")
        made.ok("run", "-d", "--runtime", "bubblewrap", "--name", "victim", "work", "--", *command)
        eventually("it is up", lambda: made.ok("logs", "victim") == "ready\n")
        daemon, supervisor = made.daemon_pid(), supervisor_of("victim")
        os.kill(daemon, signal.SIGSTOP)  # it shall not hear of the other's end
        for each in (supervisor, daemon):
            os.kill(each, signal.SIGKILL)
        eventually("nobody holds the run", lambda: made.processes() == [])
        (record,) = (made.home / ".moat" / "runs").glob("*/run.json")
        assert json.loads(record.read_text())["state"] == "running"
        yield made


def states(moat: Installation) -> list[str]:
    return [each["state"] for each in json.loads(moat.ok("list", "-a", "--json"))]


def test_who_follows_its_output_is_not_left_waiting(moat: Installation) -> None:
    assert moat.ok("logs", "-f", "victim") == "ready\n"
    assert moat.daemon_pid() == 0  # to look starts none


@pytest.mark.parametrize("words", [("stop", "victim"), ("attach", "victim"), ("exec", "victim", "--", "true")])
def test_who_wants_it_alive_is_told_that_it_is_lost_and_it_is_cleaned_up(
    moat: Installation, words: tuple[str, ...]
) -> None:
    done = moat.run(*words)

    assert (done.returncode, done.stderr) == (2, LOST)
    assert states(moat) == ["lost"]
    assert list((moat.home / ".moat" / "doors").iterdir()) == []
    eventually("its files are gone", lambda: list((moat.home / ".moat" / "inside").iterdir()) == [])


def test_it_can_be_forgotten_at_once(moat: Installation) -> None:
    moat.ok("destroy", "victim")

    assert states(moat) == []


def test_cleaning_finds_it(moat: Installation) -> None:
    moat.ok("clean", "--older-than", "0s", "--yes")

    assert states(moat) == []
