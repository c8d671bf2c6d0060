"""What agents keep from run to run: one folder for each agent and workspace, beside MOAT_HOME, which no run ever sees.

    <MOAT_HOME>-sessions/<agent>/<workspace's name>-<digest of its path>/   ◀── mounted below the run's home

Runs write there, so nothing in it is trusted: no link is followed, only the beginning of a file is read, and nothing is
ever written there from outside.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moat.api.agents import AgentProvider, KeptFile, Session
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.paths import Home, private_folder

HEAD_BYTES = 262_144
MOST_FILES = 5_000  # looked at in one folder: a run could make millions


class Sessions:
    """What one agent keeps for one workspace. workspace: the real path."""

    def __init__(self, home: Home, agent: AgentProvider, workspace: Path) -> None:
        self._agent = agent
        self._workspace = workspace
        name = re.sub(r"[^a-z0-9]+", "-", workspace.name.lower()).strip("-")[:40] or "root"
        digest = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]
        self.folder = home.sessions / agent.name / f"{name}-{digest}"

    def mounts(self, inside: str) -> tuple[Mount, ...]:
        """Make the folders and return how a run sees them. inside: the home there."""
        if not self._agent.kept:
            return ()
        private_folder(self.folder)
        return tuple(
            Mount(private_folder(self.folder / kept.replace("/", "_")), f"{inside}/{kept}") for kept in self._agent.kept
        )

    def list(self) -> list[Session]:
        """Return the sessions, newest first."""
        found = self._agent.sessions(self._files())
        return sorted(found, key=lambda session: session.modified_at, reverse=True)

    def last(self) -> str:
        """Return the id of the newest session. Raises UsageError when there is none."""
        if sessions := self.list():
            return sessions[0].id
        problem = f"{self._agent.name} has no session in this workspace to go on with"
        raise UsageError(problem, hint=f"begin one: moat {self._agent.name}")

    def named(self, reference: str, run: RunInfo | None) -> str:
        """Return the id of the session that reference is, or begins, or that run worked on. Raises UsageError."""
        if run is not None:
            return self._of(run, reference)
        fitting = self._fitting(reference)
        if reference in fitting or len(fitting) == 1:
            return reference if reference in fitting else fitting[0]
        what = "several sessions begin with" if fitting else "there is no session or run called"
        raise UsageError(f"{what} {reference!r} in this workspace", hint=self._hint)

    def refer_to_others(self, home: Home, reference: str, workspaces: Iterable[str]) -> None:
        """Raise UsageError where a session of reference is of another one of workspaces."""
        for path in sorted(set(workspaces) - {str(self._workspace)}):
            if not self._fitting(reference) and Sessions(home, self._agent, Path(path))._fitting(reference):
                raise self._elsewhere(f"the session {reference!r} is of another workspace, {path}", path, reference)

    def _of(self, run: RunInfo, reference: str) -> str:
        """Return the session of a run: the one that it went on with, else began, else wrote to last."""
        if run.workspace != str(self._workspace):
            problem = f"the run {run.name} worked in another workspace, {run.workspace}"
            raise self._elsewhere(problem, run.workspace, reference)
        sessions = self.list()
        begun = sorted((each.began_at, each.id) for each in sessions if each.began_at and _is_in(run, each.began_at))
        found = [each.id for each in sessions if each.id in run.command]
        # The first that began, since another run in the same folder may have begun one later, while this one lived.
        found += [each for _, each in begun] or [each.id for each in sessions if _is_in(run, each.modified_at)]
        if found:
            return found[0]
        raise UsageError(f"the run {run.name} left no session of {self._agent.name} here", hint=self._hint)

    def _fitting(self, reference: str) -> tuple[str, ...]:
        return tuple(each.id for each in self.list() if each.id.startswith(reference))

    def _elsewhere(self, problem: str, path: str, reference: str) -> UsageError:
        words = ("moat", self._agent.name, path, "--resume", reference)
        return UsageError(problem, hint=f"run: {shlex.join(words)}")

    @property
    def _hint(self) -> str:
        return "run: moat sessions"

    def _files(self) -> Iterator[KeptFile]:
        for kept in self._agent.kept:
            root = self.folder / kept.replace("/", "_")
            for number, file in enumerate(_read_all(root, kept)):
                if number == MOST_FILES:
                    return
                yield file


def _is_in(run: RunInfo, at: datetime) -> bool:
    """Whether something happened while run lived. Clocks of file systems tick in steps."""
    began = datetime.fromisoformat(run.started_at) - timedelta(seconds=2)
    ended = datetime.fromisoformat(run.ended_at) + timedelta(seconds=2) if run.ended_at else datetime.now(UTC)
    return began <= at <= ended


def _read_all(root: Path, kept: str) -> Iterator[KeptFile]:
    """Yield the regular files below root. Folders are held open, so that none becomes a link meanwhile."""
    for folder, _, names, descriptor in os.fwalk(root) if root.is_dir() else ():
        for name in names:
            if file := _read(name, descriptor, f"{kept}/{(Path(folder) / name).relative_to(root)}"):
                yield file


def _read(name: str, folder: int, shown: str) -> KeptFile | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        return KeptFile(shown, datetime.fromtimestamp(status.st_mtime, UTC), file.read(HEAD_BYTES))
