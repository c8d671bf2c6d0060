"""Repositories for the tests of this package: git as a user has it, with an identity and nothing else configured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    done = subprocess.run(["git", "-C", str(folder), *words], env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def a_repository(folder: Path) -> Path:
    """Make a repository with one commit on main."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name, value in {"user.name": "someone", "user.email": "someone@example.com"}.items():
        git(folder, "config", name, value)
    commit(folder, "first")
    return folder


def commit(folder: Path, subject: str) -> str:
    """Commit a change of the file `file` and return the commit."""
    (folder / "file").write_text(f"{subject}\n")
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "-m", subject)
    return git(folder, "rev-parse", "HEAD")
