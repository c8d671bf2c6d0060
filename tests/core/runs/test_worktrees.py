from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.runs.worktrees import (
    checkouts,
    commits_ahead,
    find_checkout,
    is_changed,
    open_worktree,
    remove_worktree,
    repository_of,
)

from core.runs.repositories import a_repository, commit, git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return a_repository(tmp_path / "project")


def test_a_branch_and_its_worktree_are_made_beside_the_repository(project: Path) -> None:
    (project / "deep").mkdir()

    opened = open_worktree(project / "deep", "agent/topic")

    assert opened.folder == project.with_name("project.worktrees") / "agent/topic"
    assert (opened.is_new, opened.start) == (True, "HEAD")
    assert opened.worktree.repository == project / ".git"
    assert opened.worktree.admin.parent == project / ".git/worktrees"
    assert git(opened.folder, "branch", "--show-current") == "agent/topic"
    again = open_worktree(project, "agent/topic")
    assert (again.folder, again.worktree, again.is_new) == (opened.folder, opened.worktree, False)
    assert open_worktree(opened.folder, "more").folder == project.with_name("project.worktrees") / "more"


def test_a_branch_begins_where_it_is_told_to_or_at_its_remote(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    commit(project, "second")
    git(project, "update-ref", "refs/remotes/origin/theirs", first)

    assert git(open_worktree(project, "told", first[:12]).folder, "rev-parse", "HEAD") == first
    assert git(open_worktree(project, "theirs").folder, "rev-parse", "HEAD") == first
    assert git(open_worktree(project, "other").folder, "rev-parse", "HEAD") != first


def test_a_branch_that_is_there_is_checked_out_and_a_worktree_of_the_users_is_used_where_it_is(project: Path) -> None:
    git(project, "branch", "old")
    opened = open_worktree(project, "old")
    assert (opened.is_new, opened.start, git(opened.folder, "branch", "--show-current")) == (True, "", "old")

    elsewhere = project.with_name("elsewhere")
    git(project, "worktree", "add", "--quiet", "-b", "mine", str(elsewhere))
    assert open_worktree(project, "mine").folder == elsewhere


@pytest.mark.parametrize(
    ("branch", "start", "problem"),
    [
        ("main", "", "main is checked out in .* itself"),
        ("a..b", "", "cannot be the name"),
        ("-x", "", "cannot be the name"),
        ("topic", "nowhere", "no commit 'nowhere'"),
        ("old", "main", "old is there already"),
        ("blocked", "", "blocked is in the way"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(project: Path, branch: str, start: str, problem: str) -> None:
    git(project, "branch", "old")
    blocked = project.with_name("project.worktrees") / "blocked"
    blocked.mkdir(parents=True)
    (blocked / "file").touch()

    with pytest.raises(UsageError, match=problem):
        open_worktree(project, branch, start)
    assert len(checkouts(project / ".git")) == 1


def test_a_folder_without_a_repository_and_a_repository_without_a_commit_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no git repository"):
        repository_of(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        repository_of(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    with pytest.raises(UsageError, match="no commit yet"):
        open_worktree(empty, "topic")


def test_worktrees_are_found_looked_at_and_removed_and_the_branch_stays(project: Path) -> None:
    repository = project / ".git"
    folder = open_worktree(project, "agent/topic").folder
    assert [(each.branch, each.is_main) for each in checkouts(repository)] == [("main", True), ("agent/topic", False)]
    assert (is_changed(folder), commits_ahead(repository, "agent/topic")) == (False, 0)

    commit(folder, "second")
    (folder / "new").touch()
    assert (is_changed(folder), commits_ahead(repository, "agent/topic")) == (True, 1)

    found = find_checkout(repository, "agent/topic")
    assert found is not None
    remove_worktree(repository, found)
    assert not project.with_name("project.worktrees").exists()
    assert find_checkout(repository, "agent/topic") is None
    assert git(project, "log", "-1", "--format=%s", "agent/topic") == "second"
