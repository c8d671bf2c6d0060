"""The run is played by git itself, in the place where the run would find its repository and the user's objects."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from moat.paths import Home, private_folder
from moat.runs.git import GitFailed
from moat.runs.outcomes import Commits, commits_of
from moat.runs.repositories import CommitsLost, OwnRepository, purge, recover_commits, tips_of
from moat.runs.worktrees import Opened, open_worktree

from core.runs.repositories import a_repository, commit, git

RUN = "run_0123456789ab"


@dataclass
class Work:
    """A repository with a worktree of the branch topic, and a run that works in it."""

    home: Home
    project: Path
    opened: Opened
    own: OwnRepository

    def inside(self, *words: str) -> str:
        """Run git as the run would."""
        env = {
            "PATH": os.environ["PATH"], "HOME": "/nowhere", "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(self.own.path),
            "GIT_WORK_TREE": str(self.opened.folder),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.project / ".git/objects"),
        }  # fmt: skip
        done = subprocess.run(
            ["git", *words], env=env, cwd=self.opened.folder, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit_inside(self, subject: str) -> str:
        (self.opened.folder / "file").write_text(subject)
        self.inside("commit", "--quiet", "--all", "-m", subject)
        return self.inside("rev-parse", "HEAD")

    def tip(self, ref: str = "topic") -> str:
        return git(self.project, "rev-parse", ref)

    def ended(self) -> Commits:
        self.own.finish()
        commits = commits_of(self.home, RUN)
        assert commits is not None
        assert list(self.home.copies.iterdir()) == []
        return commits


@pytest.fixture
def work(tmp_path: Path) -> Work:
    home = Home(private_folder(tmp_path / "moat"))
    private_folder(home.run(RUN))
    project = a_repository(tmp_path / "project")
    git(project, "remote", "add", "origin", "https://me:s3cr3t@example.com/project.git")
    git(project, "config", "core.sshCommand", "touch trap")
    opened = open_worktree(project, "topic")
    own = OwnRepository(home, RUN, opened.worktree)
    asyncio.run(own.make())
    return Work(home, project, opened, own)


def test_what_a_run_commits_is_on_the_branch_afterwards_and_the_worktree_is_clean(work: Work) -> None:
    before = work.tip()
    assert work.inside("status", "--porcelain") == ""
    after = work.commit_inside("by the run")
    assert work.tip() == before

    assert work.ended() == Commits("topic", before, after, 1)
    assert work.tip() == after
    assert git(work.opened.folder, "status", "--porcelain") == ""
    assert git(work.project, "for-each-ref", "refs/moat") == ""
    assert git(work.project, "fsck", "--strict", "--no-dangling") == ""


def test_the_run_knows_branches_identity_and_remotes_without_logins_and_nothing_that_starts_programs(
    work: Work,
) -> None:
    assert work.inside("log", "--format=%s %an", "main") == "first someone"
    assert work.inside("remote", "get-url", "origin") == "https://example.com/project.git"
    assert "core.sshcommand" not in work.inside("config", "--list")
    assert "s3cr3t" not in (work.own.path / "config").read_text()


def test_files_that_are_staged_and_not_committed_are_so_inside_too(work: Work) -> None:
    work.own.discard()
    (work.opened.folder / "new").touch()
    git(work.opened.folder, "add", "new")
    asyncio.run(work.own.make())

    assert work.inside("status", "--porcelain") == "A  new"
    assert work.ended().count == 0
    assert git(work.opened.folder, "status", "--porcelain") == "A  new"


def test_a_history_that_was_rewritten_is_taken_over_too(work: Work) -> None:
    before = work.tip()
    work.inside("commit", "--quiet", "--amend", "--allow-empty", "-m", "rewritten")

    commits = work.ended()
    assert (commits.count, commits.is_moved) == (1, True)
    assert git(work.project, "log", "--format=%s", "topic") == "rewritten"
    assert git(work.project, "rev-parse", "topic@{1}") == before


def test_a_branch_that_was_moved_meanwhile_stays_and_the_runs_commits_are_kept_beside_it(work: Work) -> None:
    theirs = work.commit_inside("by the run")
    git(work.opened.folder, "reset", "--hard", "--quiet")
    ours = commit(work.opened.folder, "by the user")

    commits = work.ended()
    assert (commits.is_moved, commits.others) == (False, (f"refs/moat/{RUN}/topic",))
    assert (work.tip(), work.tip(f"moat/{RUN}/topic")) == (ours, theirs)


def test_a_worktree_in_which_git_is_at_work_is_left_alone_and_its_turn_comes_later(work: Work) -> None:
    after = work.commit_inside("by the run")
    lock = work.opened.worktree.admin / "index.lock"
    lock.touch()

    with pytest.raises(CommitsLost, match="git is at work in the worktree"):
        work.own.finish()
    assert work.tip() != after

    lock.unlink()
    assert recover_commits(work.home, work.project / ".git", [RUN]) == [RUN]
    assert work.tip() == after
    assert git(work.project, "for-each-ref", "refs/moat") == ""


def test_other_branches_of_the_run_and_a_head_on_none_are_kept_and_the_users_own_stay(work: Work) -> None:
    main = work.tip("main")
    work.inside("update-ref", "refs/heads/main", work.inside("commit-tree", "-p", main, "-m", "x", f"{main}^{{tree}}"))
    work.inside("checkout", "--quiet", "--detach")
    adrift = work.commit_inside("adrift")

    commits = work.ended()
    assert commits.others == (f"refs/moat/{RUN}/HEAD", f"refs/moat/{RUN}/main")
    assert work.tip("main") == main
    assert work.tip(f"moat/{RUN}/HEAD") == adrift


def test_what_is_no_whole_history_is_not_taken_over_and_stays_where_it_is(work: Work) -> None:
    before = work.tip()
    work.commit_inside("by the run")
    tree = work.inside("rev-parse", "HEAD^{tree}")
    (work.own.path / "objects" / tree[:2] / tree[2:]).unlink()

    with pytest.raises(CommitsLost, match="it is still in"):
        work.own.finish()
    work.own.discard()

    assert work.own.path.is_dir()
    assert work.tip() == before


def test_what_a_killed_holder_left_is_taken_over_later_and_only_that_of_runs_that_are_over(work: Work) -> None:
    after = work.commit_inside("by the run")
    repository = work.project / ".git"

    assert recover_commits(work.home, repository, []) == []
    assert recover_commits(work.home, work.home.root, [RUN]) == []
    assert recover_commits(work.home, repository, [RUN]) == [RUN]
    assert work.tip() == after


def test_a_repository_that_borrows_objects_is_refused(work: Work) -> None:
    work.own.discard()
    (work.project / ".git/objects/info/alternates").write_text("/srv/other/objects\n")

    with pytest.raises(GitFailed, match="borrows objects"):
        asyncio.run(work.own.make())


def test_branches_are_read_from_plain_files_only(tmp_path: Path) -> None:
    heads, one = tmp_path / "refs/heads", "1" * 40
    (heads / "deep").mkdir(parents=True)
    for name, text in {
        "deep/good": f"{one}\n",
        "short": "123",
        "linked..bad": one,
        "x.lock": one,
        "ref": "ref: y",
    }.items():
        (heads / name).write_text(text)
    (tmp_path / "secret").write_text(f"{'2' * 40}\n")
    (heads / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(heads / "pipe")
    (tmp_path / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{one} refs/heads/packed\n^{one}\n{one} refs/tags/v1\n"
    )
    (tmp_path / "HEAD").write_text("ref: refs/heads/deep/good\n")

    assert tips_of(tmp_path) == {"refs/heads/deep/good": one, "refs/heads/packed": one}


def test_of_objects_only_plain_files_are_left(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    (objects / "info").mkdir(parents=True)
    (objects / "info/alternates").write_text("/srv/private/objects\n")
    (objects / "ab").mkdir()
    (objects / "ab/cd").touch()
    (objects / "pack").symlink_to("/srv/private/pack")
    os.mkfifo(objects / "ab/pipe")

    purge(objects)

    assert sorted(path.relative_to(objects).as_posix() for path in objects.rglob("*")) == ["ab", "ab/cd"]
    objects.rename(tmp_path / "elsewhere")
    objects.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no folder"):
        purge(objects)
