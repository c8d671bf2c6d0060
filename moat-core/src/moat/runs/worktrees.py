"""Git worktrees on this machine: found, made and removed, one for each branch that a run works on.

    project/             the repository, whose `.git` no run with a worktree may write
    project.worktrees/   agent/topic/   the worktree of the branch agent/topic

Those that the user made elsewhere by `git worktree add` are used where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moat.api.errors import UsageError
from moat.api.runs import Worktree
from moat.runs.git import GitFailed, git, git_says

SUFFIX = ".worktrees"


@dataclass(frozen=True, slots=True)
class Checkout:
    """One working tree of a repository. branch: "" where none is checked out. is_main: the repository's own."""

    folder: Path
    branch: str
    is_main: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A worktree ready for a run. is_new: it was made just now. start: what its branch began at, if that is new too."""

    folder: Path
    worktree: Worktree
    is_new: bool
    start: str = ""


def repository_of(folder: Path) -> Path:
    """Return the repository's own folder (`.git`) that a folder belongs to. Raises UsageError where there is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name the repository's folder")
    try:
        return Path(git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    except GitFailed as failure:
        problem = f"{folder} is no git repository" if "not a git repo" in failure.problem else failure.problem
        raise UsageError(problem, hint="go to one, or name it: moat run FOLDER --worktree BRANCH -- COMMAND") from None


def checkouts(repository: Path) -> list[Checkout]:
    """Return the working trees of a repository, its own first. Those whose folder is gone are left out."""
    found = []
    for number, block in enumerate(git(repository, "worktree", "list", "--porcelain").split("\n\n")):
        fields = dict(line.partition(" ")[::2] for line in block.splitlines())
        folder = Path(fields.get("worktree", ""))
        if folder.is_dir() and "bare" not in fields:
            found.append(Checkout(folder, fields.get("branch", "").removeprefix("refs/heads/"), number == 0))
    return found


def find_checkout(repository: Path, branch: str) -> Checkout | None:
    """Return the working tree in which a branch is checked out."""
    return next((each for each in checkouts(repository) if each.branch == branch), None)


def open_worktree(folder: Path, branch: str, start: str = "") -> Opened:
    """Return the worktree of a branch; one that is not there is made, and so is the branch.

    folder: any in the repository. start: what a new branch begins at; by default the branch of that name at a remote,
    if there is exactly one, else the commit that is checked out in folder. Raises UsageError and GitFailed.
    """
    repository = repository_of(folder)
    if not git_says(repository, "check-ref-format", "--branch", branch) or branch.startswith("-"):
        raise UsageError(f"{branch!r} cannot be the name of a branch", hint="write one like agent/topic")
    has_branch = git_says(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
    if has_branch and start:
        raise UsageError(f"the branch {branch} is there already", hint="leave --from away, or name a new branch")
    found = find_checkout(repository, branch)
    if found is not None:
        if found.is_main:
            problem = f"{branch} is checked out in {found.folder} itself"
            raise UsageError(problem, hint="name another branch, or work there: moat run -- COMMAND")
        return Opened(found.folder, _worktree(repository, found.folder, branch), is_new=False)
    place = _place(repository, branch)
    if has_branch:
        _add(folder, str(place), branch)
        return Opened(place, _worktree(repository, place, branch), is_new=True)
    start = start or _at_a_remote(repository, branch) or "HEAD"
    if not git_says(folder, "rev-parse", "--verify", "--quiet", f"{start}^{{commit}}"):
        if start == "HEAD":
            raise UsageError("the repository has no commit yet", hint="run: git commit")
        raise UsageError(f"there is no commit {start!r}", hint="name a branch, a tag or a commit: --from REV")
    _add(folder, "-b", branch, str(place), start)
    return Opened(place, _worktree(repository, place, branch), is_new=True, start=start)


def is_changed(folder: Path) -> bool:
    """Whether there are files in a worktree that no commit has. Repositories within are not looked into."""
    return bool(git(folder, "status", "--porcelain", "--ignore-submodules=all"))


def commits_ahead(repository: Path, branch: str) -> int:
    """Return how many commits of a branch the repository's own working tree does not have."""
    count = git(repository, "rev-list", "--count", f"HEAD..refs/heads/{branch}")
    return int(count)


def remove_worktree(repository: Path, checkout: Checkout) -> None:
    """Remove a worktree with whatever is in it, and folders above that are empty then; its branch stays."""
    git(repository, "worktree", "remove", "--force", str(checkout.folder))
    above = _folder(repository)
    for parent in checkout.folder.parents:
        if not parent.is_relative_to(above) or any(parent.iterdir()):
            break
        parent.rmdir()


def _worktree(repository: Path, folder: Path, branch: str) -> Worktree:
    return Worktree(repository, Path(git(folder, "rev-parse", "--absolute-git-dir")), branch)


def _folder(repository: Path) -> Path:
    """Return the folder for worktrees, beside the repository's: on the same disk, where the user finds them."""
    own = repository.parent if repository.name == ".git" else repository
    return own.with_name(own.name + SUFFIX)


def _place(repository: Path, branch: str) -> Path:
    place = _folder(repository) / branch
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} is in the way", hint="move it, or make the worktree elsewhere: git worktree add")
    return place


def _at_a_remote(repository: Path, branch: str) -> str:
    found = git(repository, "for-each-ref", "--format=%(refname:short)", f"refs/remotes/*/{branch}").split()
    return found[0] if len(found) == 1 else ""


def _add(folder: Path, *words: str) -> None:
    try:
        git(folder, "worktree", "add", "--quiet", *words)
    except GitFailed as failure:
        hint = "make it where you like, and moat uses it there: git worktree add FOLDER BRANCH"
        raise GitFailed(failure.problem, hint=hint) from None
