"""Git in repositories of the user's, run by moat: none of their hooks starts, and no variable leads it elsewhere.

What the user configured otherwise (identity, filters, where objects lie) holds, as if the user had typed the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from moat.api.errors import MoatError, UsageError

# They start programs: hooks as they are named, a monitor with every look at the files.
_QUIET = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
          "-c", "maintenance.auto=false")  # fmt: skip
_KEPT = ("GIT_SSH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH", "GIT_AUTHOR_",
         "GIT_COMMITTER_")  # and what begins so  # fmt: skip


class GitFailed(MoatError):
    """Git could not do it; what it said."""


def git(folder: Path, *words: str, data: bytes = b"", env: dict[str, str] | None = None) -> str:
    """Run git in a folder and return what it printed, without the newline at the end. env: further variables.

    Raises GitFailed, and UsageError where git is not installed.
    """
    done = _run(folder, words, data, env or {})
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        problem = next((line for line in said if line.startswith(("fatal:", "error:"))), said[-1] if said else "")
        raise GitFailed(f"git {words[0]} failed: {problem or done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def git_says(folder: Path, *words: str) -> bool:
    """Whether git ends with 0. Raises UsageError where it is not installed."""
    return _run(folder, words, b"", {}).returncode == 0


def _run(folder: Path, words: tuple[str, ...], data: bytes, more: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("git") is None:
        raise UsageError("this needs git, which is not installed", hint="install git, e.g. apt-get install git")
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_KEPT)}
    env = {**own, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", **more}
    return subprocess.run(["git", *_QUIET, *words], cwd=folder, env=env, input=data, capture_output=True, check=False)
