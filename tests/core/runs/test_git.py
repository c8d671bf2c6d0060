from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.runs.git import GitFailed, git, git_says

from core.runs.repositories import a_repository


def test_neither_hooks_nor_monitors_of_a_repository_are_started(tmp_path: Path) -> None:
    folder, trap = a_repository(tmp_path / "project"), tmp_path / "trap"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {trap}\n")
    program.chmod(0o755)
    (folder / ".git/hooks/post-checkout").symlink_to(program)
    git(folder, "config", "core.fsmonitor", str(program))

    git(folder, "status")
    git(folder, "worktree", "add", "--quiet", "-b", "topic", str(tmp_path / "topic"))

    assert not trap.exists()


def test_the_callers_own_repository_is_not_taken_for_the_one_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = a_repository(tmp_path / "one"), a_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))

    assert git(one, "rev-parse", "--show-toplevel") == str(one)


def test_what_git_says_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match="git log failed: fatal: not a git repository"):
        git(tmp_path, "log")
    assert not git_says(tmp_path, "log")


def test_a_machine_without_git_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UsageError, match="needs git"):
        git(tmp_path, "log")
