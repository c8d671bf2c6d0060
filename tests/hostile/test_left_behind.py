"""What a run leaves in the workspace for the user's own tools to run is told, whoever waited for the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually, installation

pytestmark = [pytest.mark.bubblewrap]

TRAP = "mkdir -p .git/hooks .vscode; echo '#!/bin/sh' > .git/hooks/post-merge; echo '{}' > .vscode/tasks.json"
TOLD = b"the run changed files that run by themselves here: .git/hooks/post-merge (new), .vscode/tasks.json (new)"


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work" / ".git").mkdir(parents=True)
        yield made


def test_a_hook_and_a_task_left_by_a_run_are_told_at_its_end(moat: Installation) -> None:
    assert TOLD in moat.run("run", "work", "--runtime", "bubblewrap", "--", "sh", "-c", TRAP).stderr
    assert b"run by themselves" not in moat.run("run", "work", "--runtime", "bubblewrap", "--", "true").stderr


def test_those_left_by_a_detached_run_are_told_to_who_waits_for_it(moat: Installation) -> None:
    moat.ok("run", "-d", "work", "--runtime", "bubblewrap", "--name", "away", "--", "sh", "-c", TRAP)

    assert TOLD in moat.run("wait", "away").stderr


def test_a_run_that_is_killed_does_not_hide_them(moat: Installation) -> None:
    script = TRAP + "; exec sleep 600"
    moat.ok("run", "-d", "work", "--runtime", "bubblewrap", "--name", "killed", "--", "sh", "-c", script)
    eventually("the trap is laid", (moat.home / "work" / ".vscode" / "tasks.json").exists)
    moat.ok("stop", "-t", "0", "killed")

    assert b".git/hooks/post-merge (new)" in moat.run("wait", "killed").stderr
