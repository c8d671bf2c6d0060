"""What agents keep from run to run: one folder for each agent and workspace, beside MOAT_HOME, which no run ever sees.

    <MOAT_HOME>-sessions/<agent>/<workspace's name>-<digest of its path>/   ◀── mounted below the run's home

Runs write there, so nothing in it is trusted: no link is followed, only the beginning of a file is read, and nothing is
ever written there from outside.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
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
        sessions = self.list()
        if run is not None:
            session = next((each for each in sessions if _is_of(run, each)), None)
            if session is not None:
                return session.id
            raise UsageError(f"the run {run.name} left no session of {self._agent.name} here", hint=self._hint)
        fitting = [each.id for each in sessions if each.id.startswith(reference)]
        if reference in fitting or len(fitting) == 1:
            return reference if reference in fitting else fitting[0]
        what = "several sessions begin with" if fitting else "there is no session or run called"
        raise UsageError(f"{what} {reference!r} in this workspace", hint=self._hint)

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


def _is_of(run: RunInfo, session: Session) -> bool:
    """Whether a session was written to last while run lived. Clocks of file systems tick in steps."""
    began = datetime.fromisoformat(run.started_at) - timedelta(seconds=2)
    ended = datetime.fromisoformat(run.ended_at) + timedelta(seconds=2) if run.ended_at else datetime.now(UTC)
    return began <= session.modified_at <= ended


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
