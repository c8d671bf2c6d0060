from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.cli.wt import run_name
from support.installation import Installation, eventually, installation
from support.supervisors import supervisor_of

from core.runs.repositories import a_repository, git

pytestmark = [pytest.mark.bubblewrap]
COMMIT = "echo two > file; git commit --quiet --all -m second"


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.configure({"runtime": "bubblewrap"})
        yield made


@pytest.fixture
def project(moat: Installation, request: pytest.FixtureRequest) -> Path:
    return a_repository(moat.home / f"work{request.node.name.partition('[')[0]}" / "project")


def test_a_branch_is_worked_on_looked_at_pruned_and_removed(moat: Installation, project: Path) -> None:
    folder = project.with_name("project.worktrees") / "agent/topic"

    done = moat.run("wt", "agent/topic", "--", "sh", "-ec", COMMIT, cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"moat: made the worktree {folder} of agent/topic, a new branch from HEAD".encode() in done.stderr
    assert b"moat: agent-topic \xc2\xb7 bubblewrap" in done.stderr
    assert f"moat: agent/topic · 1 new commit · {folder} · git log ".encode() in done.stderr
    assert git(project, "log", "-1", "--format=%s %an", "agent/topic") == "second someone"

    again = moat.run("run", "--worktree", "agent/topic", "--name", "other", "--", "touch", "new", cwd=project)
    assert b"made the worktree" not in again.stderr
    assert b"moat: agent/topic \xc2\xb7 no new commits" in again.stderr
    assert json.loads(moat.ok("wt", "list", "--json", cwd=project)) == [
        {"branch": "agent/topic", "folder": str(folder), "commits": 1, "changed": True, "run": None}
    ]
    assert f"agent/topic  1        changed  -    {folder}" in moat.ok("wt", "list", cwd=folder)

    assert b"files that no commit has" in moat.run("wt", "remove", "agent/topic", cwd=project).stderr
    assert moat.ok("wt", "prune", "--yes", cwd=project) == "there is nothing to prune\n"
    moat.ok("wt", "remove", "--force", "agent/topic", cwd=project)
    assert not folder.exists()
    assert moat.ok("wt", "list", cwd=project).startswith("no worktrees yet")
    assert b"no worktree of 'agent/topic'" in moat.run("wt", "remove", "agent/topic", cwd=project).stderr

    moat.ok("wt", "agent/topic", "--", "true", cwd=project)
    git(project, "merge", "--quiet", "agent/topic")
    assert moat.ok("wt", "prune", "--yes", cwd=project) == f"agent/topic  {folder}\n"
    assert not folder.exists()


def test_a_branch_belongs_to_one_run_at_a_time_and_what_a_killed_one_committed_is_fetched(
    moat: Installation, project: Path
) -> None:
    script = f"{COMMIT}; echo ready; exec sleep 600"
    moat.ok("wt", "topic", "-d", "--name", "wt-killed", "--", "sh", "-ec", script, cwd=project)
    eventually("the commit", lambda: "ready" in moat.ok("logs", "wt-killed"))

    busy = moat.run("wt", "topic", "--", "true", cwd=project)
    assert busy.returncode == 2
    assert b"the run wt-killed works in" in busy.stderr
    assert b"hint: run: moat attach wt-killed" in busy.stderr
    assert b"works in" in moat.run("wt", "remove", "--force", "topic", cwd=project).stderr
    assert json.loads(moat.ok("wt", "list", "--json", cwd=project))[0]["run"] == "wt-killed"

    os.kill(supervisor_of("wt-killed"), signal.SIGKILL)
    moat.run("wait", "wt-killed")
    assert git(project, "rev-list", "--count", "topic") == "1"
    assert b"had committed when it was cut off is fetched" in moat.run("wt", "list", cwd=project).stderr
    assert git(project, "rev-list", "--count", "topic") == "2"


def test_what_cannot_be_is_told_with_what_to_type(moat: Installation, project: Path) -> None:
    cases = [
        (["wt", "topic", "--dry-run", "--", "true"], b"topic has no worktree yet", b"without --dry-run"),
        (["wt", "main", "--", "true"], b"main is checked out in", b"name another branch"),
        (["run", "--from", "main", "--", "true"], b"--from goes with --worktree", b"moat wt BRANCH --from"),
        (["wt", "topic", "--copy", "--", "true"], b"a worktree is a copy already", b"leave --copy away"),
        (["wt", "topic", "--runtime", "process", "--", "true"], b"process cannot keep a run", b"leave --worktree"),
    ]
    for words, problem, hint in cases:
        done = moat.run(*words, cwd=project)

        assert done.returncode == 2, words
        assert b"error: " + problem in done.stderr
        assert hint in done.stderr


def test_a_plan_names_the_branch(moat: Installation, project: Path) -> None:
    moat.ok("wt", "topic", "--", "true", cwd=project)

    shown = moat.ok("wt", "topic", "--dry-run", "--", "true", cwd=project)

    assert f"workspace  {project}.worktrees/topic, a worktree of topic  [--worktree]" in shown
    told = json.loads(moat.ok("wt", "topic", "--dry-run", "--json", "--", "true", cwd=project))
    assert told["branch"] == "topic"


@pytest.mark.parametrize(
    ("branch", "name"), [("agent/Topic-1", "agent-topic-1"), ("ä", ""), ("x" * 80, "x" * 63), ("_a_", "a")]
)
def test_a_run_is_named_after_its_branch(branch: str, name: str) -> None:
    assert run_name(branch) == name
