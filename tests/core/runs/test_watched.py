from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from moat.paths import Home, private_folder
from moat.runs.watched import MAX_FILES, changes, marks_of, read_changes, write_changes


def git(folder: Path, *words: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "-C", str(folder), *words], env=env, check=True, capture_output=True)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".vscode").mkdir()
    (folder / ".vscode" / "tasks.json").write_text("{}")
    return folder


def changed_by(work: Path, act: Callable[[Path], object]) -> tuple[str, ...]:
    before = marks_of(work)
    act(work)
    return changes(before, marks_of(work))


def new_hook(work: Path) -> None:
    (work / ".git/hooks/pre-commit").write_text("#!/bin/sh\n")


def hooks_by_link(work: Path) -> None:
    subprocess.run(["rm", "-rf", str(work / ".git/hooks")], check=True)
    (work / ".git/hooks").symlink_to("/somewhere")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (new_hook, (".git/hooks/pre-commit (new)",)),
        (
            lambda work: (work / ".git/hooks/pre-commit.sample").chmod(0o600),
            (".git/hooks/pre-commit.sample (changed)",),
        ),
        (lambda work: (work / ".vscode/tasks.json").write_text("{ }"), (".vscode/tasks.json (changed)",)),
        (lambda work: (work / ".vscode/tasks.json").unlink(), (".vscode/tasks.json (removed)",)),
        (lambda work: (work / ".envrc").symlink_to("elsewhere"), (".envrc (new)",)),
        (lambda work: os.mkfifo(work / ".bashrc"), (".bashrc (new)",)),
        (lambda work: git(work, "config", "core.fsmonitor", "touch /tmp/x"), (".git/config (changed)",)),
        (lambda work: git(work, "config", "core.hooksPath", ".h"), (".git/config (changed)",)),
        (lambda work: git(work, "config", "alias.st", "!id"), (".git/config (changed)",)),
        (lambda work: git(work, "remote", "add", "x", "ext::sh -c id"), (".git/config (changed)",)),
        (lambda work: git(work, "config", "remote.x.uploadpack", "id"), (".git/config (changed)",)),
    ],
)
def test_what_would_run_by_itself_is_told(work: Path, act: Callable[[Path], object], told: tuple[str, ...]) -> None:
    assert changed_by(work, act) == told


def test_hooks_replaced_by_a_link_are_told_and_not_followed(work: Path) -> None:
    told = changed_by(work, hooks_by_link)

    assert ".git/hooks (new)" in told
    assert ".git/hooks/pre-commit.sample (changed)" in told or ".git/hooks/pre-commit.sample (removed)" in told


def ordinary_work(work: Path) -> None:
    (work / "code.py").write_text("print()")
    git(work, "add", "code.py")
    git(work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "x")
    git(work, "checkout", "-q", "-b", "topic")
    git(work, "remote", "add", "origin", "https://github.com/a/b.git")
    git(work, "config", "branch.topic.remote", "origin")
    git(work, "config", "branch.topic.merge", "refs/heads/topic")


def test_ordinary_work_with_git_is_not(work: Path) -> None:
    assert changed_by(work, ordinary_work) == ()


def test_a_submodules_hooks_count_and_its_objects_do_not(work: Path) -> None:
    modules = [work / ".git/modules" / name for name in ("one", "two")]
    for folder in modules:
        (folder / "hooks").mkdir(parents=True)
        (folder / "HEAD").touch()
        (folder / "objects").mkdir()
        for number in range(MAX_FILES):
            (folder / "objects" / str(number)).touch()

    def act(_: Path) -> None:
        for folder in modules:
            (folder / "hooks/post-checkout").write_text("x")
            (folder / "index").write_text("x")

    assert changed_by(work, act) == tuple(f".git/modules/{name}/hooks/post-checkout (new)" for name in ("one", "two"))


def test_a_workspace_that_is_no_repository_is_fine(tmp_path: Path) -> None:
    assert marks_of(tmp_path) == {}
    assert marks_of(tmp_path / "gone") == {}


def test_changes_are_kept_with_the_run(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "moat"))
    assert read_changes(home, "run_0123456789ab") == ()

    write_changes(home, "run_0123456789ab", (".envrc (new)",))

    assert read_changes(home, "run_0123456789ab") == (".envrc (new)",)
    (home.run("run_0123456789ab") / "changed.json").write_text("{")
    assert read_changes(home, "run_0123456789ab") == ()
