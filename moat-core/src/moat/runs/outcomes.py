"""What a run in a git worktree committed: `runs/<id>/commits.json`, left by `runs/repositories.py`. Cheap to import.

Also where the repository of such a run lies, here and inside.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from moat.api.light import dataclass
from moat.paths import Home, write_private

FILE_NAME = "commits.json"
SUFFIX = ".own"
REPOSITORY, OBJECTS_INSIDE = "/repository.git", "/repository.objects"


@dataclass(frozen=True, slots=True)
class Commits:
    """What became of a branch. count: of new commits. is_moved: False where the user had moved the branch meanwhile.

    others: refs of the user's repository that keep what the run left on other branches, or what does not fit this one.
    """

    branch: str
    before: str
    after: str
    count: int = 0
    is_moved: bool = True
    others: tuple[str, ...] = ()


def write_commits(home: Home, run_id: str, commits: Commits) -> None:
    """Keep it, for who asks later. Raises UNWRITABLE of moat.paths."""
    write_private(home.run(run_id) / FILE_NAME, json.dumps(asdict(commits), indent=1).encode())


def commits_of(home: Home, run_id: str) -> Commits | None:
    """Return what a run committed; None where it worked in no worktree, or is not over."""
    try:
        data = json.loads((home.run(run_id) / FILE_NAME).read_bytes())
        return Commits(**{**data, "others": tuple(data["others"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def repository_path(home: Home, run_id: str) -> Path:
    """Return where a run's own repository lies, whether there is one or not."""
    return home.copies / f"{run_id}{SUFFIX}" / "repository.git"
