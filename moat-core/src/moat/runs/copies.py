"""A copy of a workspace for one run, and what the run changed in it: a patch, to be taken over or not.

    workspace ──cp──▶ <MOAT_HOME>-copies/<run>/ ──the run──▶ compared ──▶ runs/<run>/result.patch; the copy is removed

All files are copied, ignored ones too, but for what `exclude` names; the patch leaves out what .gitignore names, as
`git diff` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from moat.api.errors import MoatError, UsageError
from moat.api.runs import RunInfo
from moat.paths import UNWRITABLE, Home, private_folder, remove_tree, write_private
from moat.runs.copying import NotCopied, copy_tree
from moat.runs.git import GitFailed, git, git_says
from moat.runs.results import FILE_NAME
from moat.runs.snapshots import Snapshots


class CopyFailed(MoatError):
    """The workspace could not be copied, or a result not be taken over."""


class WorkingCopy:
    """One run's copy. source: the workspace. left_out: what of it, paths below it, is not copied."""

    def __init__(self, home: Home, run_id: str, source: Path, left_out: Sequence[str] = ()) -> None:
        self._home = home
        self._run_id = run_id
        self._source = source
        self._left_out = left_out
        self._target = home.copies / run_id
        self._repository = home.copies / f"{run_id}.git"
        self._has_work = False

    async def make(self) -> None:
        """Copy the workspace. Raises CopyFailed, and UsageError where git, which compares, is missing."""
        private_folder(self._target.parent)
        self._target.mkdir(mode=0o700)
        try:
            await copy_tree(self._source, self._target, self._left_out)
        except NotCopied as failure:
            problem = f"the workspace could not be copied: {failure}"
            raise CopyFailed(problem, hint="free some space, or run it without a copy") from None
        await asyncio.to_thread(self._snapshots().create, "as it was copied")

    def finish(self) -> None:
        """Keep what was changed, and remove the copy. Raises CopyFailed where that cannot be: the copy then stays."""
        self._has_work = True
        try:
            options = ("--patch", "--binary", "--full-index", "--no-renames")
            snapshots = self._snapshots()
            patch = snapshots.diff(snapshots.all()[-1], *options)
            write_private(self._home.run(self._run_id) / FILE_NAME, patch)
        except (*UNWRITABLE, MoatError) as failure:
            problem = f"what the run changed could not be kept ({failure}); it is still in {self._target}"
            raise CopyFailed(problem, hint="copy it by hand, then run: moat clean") from None
        self._has_work = False
        self.discard()

    def discard(self) -> None:
        """Remove the copy and what it is compared with, unless there is work in it that is not kept."""
        if not self._has_work:
            for folder in (self._target, self._repository):
                with contextlib.suppress(OSError):
                    remove_tree(folder)

    def _snapshots(self) -> Snapshots:
        return Snapshots(self._home, self._target, self._repository)


def recover(home: Home, info: RunInfo) -> None:
    """Keep what a run changed whose launcher was killed before it could do so. Raises CopyFailed."""
    if (home.copies / f"{info.run_id}.git").is_dir():
        WorkingCopy(home, info.run_id, Path(info.workspace)).finish()


def overview(patch: bytes) -> str:
    """Return which files a patch changes, and how much."""
    return _apply(Path("/"), patch, "--stat", "--summary").decode(errors="replace")


def take_over(patch: bytes, workspace: Path) -> None:
    """Change the files of a workspace as the run changed its copy: all, or, raising CopyFailed, none."""
    _apply(workspace, patch, "--binary", "--whitespace=nowarn")


def as_branch(patch: bytes, workspace: Path, branch: str, message: str) -> str:
    """Make a branch of the workspace's repository: its HEAD and the patch. Files and index stay. Returns the commit.

    Raises UsageError where there is no repository, no commit, or such a branch already, CopyFailed where HEAD is not
    what was copied.
    """
    ref = f"refs/heads/{branch}"
    if objection := _objection(workspace, branch, ref):
        raise objection
    index = Path(git(workspace, "rev-parse", "--absolute-git-dir")) / f"moat-{os.getpid()}.index"
    env = {"GIT_INDEX_FILE": str(index)}
    try:
        git(workspace, "read-tree", "HEAD", env=env)
        git(workspace, "apply", "--cached", "--binary", "--whitespace=nowarn", "-", env=env, data=patch)
        tree = git(workspace, "write-tree", env=env)
        commit = git(workspace, "commit-tree", tree, "-p", "HEAD", "-m", message)
        git(workspace, "update-ref", ref, commit, "0" * len(commit))  # only if there is none
    except GitFailed as failure:
        problem = f"the changes do not fit the last commit, which is not what the run had: {failure.problem}"
        raise CopyFailed(
            problem, hint="run: moat apply RUN, which takes the files over; moat diff RUN shows them"
        ) from None
    finally:
        index.unlink(missing_ok=True)
    return commit


def _objection(workspace: Path, branch: str, ref: str) -> UsageError | None:
    """Return why no branch can be made, and what to do; None where one can."""
    plain = "take the files over, without --branch"
    if not git_says(workspace, "rev-parse", "--git-dir"):
        return UsageError(f"{workspace} is no git repository", hint=plain)
    if git(workspace, "rev-parse", "--show-prefix"):
        return UsageError(f"{workspace} is not the top of its repository", hint=plain)
    if not git_says(workspace, "rev-parse", "--verify", "--quiet", "HEAD"):
        problem = f"the repository {workspace} has no commit yet, on which a branch could stand"
        return UsageError(problem, hint=f"run: git commit, or {plain}")
    if not git_says(workspace, "check-ref-format", ref):
        return UsageError(f"{branch!r} cannot be the name of a branch", hint="write one like agent/topic")
    if git_says(workspace, "rev-parse", "--verify", "--quiet", ref):
        return UsageError(f"the branch {branch} is there already", hint="name another one with --branch")
    return None


def _apply(workspace: Path, patch: bytes, *options: str) -> bytes:
    """Run `git apply` as outside of any repository: paths are the workspace's own, and no configuration has a say."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/",
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CEILING_DIRECTORIES": str(workspace.parent), "GIT_DIR": os.devnull,
    }  # fmt: skip
    command = ["git", "apply", *options, "-"]
    done = subprocess.run(command, cwd=workspace, env=env, input=patch, capture_output=True, check=False)
    if done.returncode:
        raise CopyFailed(f"the changes do not fit the workspace as it is now: {_last(done.stderr)}")
    return done.stdout


def _last(said: bytes) -> str:
    return (said.decode(errors="replace").strip().splitlines() or ["it did not say why"])[0]
