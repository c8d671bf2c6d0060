"""Snapshots of a workspace: its files as they were, kept in MOAT_HOME and brought back from there.

    snapshots/<hash of the path>/    a git repository of ours: refs/snapshots/<time>, and `workspace`, the path

Git does the work, with the workspace as its work tree: what .gitignore names is left out, equal files are kept once. It
reads no configuration but ours, and no attribute of the workspace changes a byte: what is in there may be hostile.
The workspace's own repository (`.git`) is neither kept nor touched; empty folders are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from moat.api.errors import MoatError, UsageError
from moat.paths import Home, private_folder, write_private

ID_CHARS = 10
_PREFIX = "refs/snapshots/"
_FIELDS = "%(objectname)%09%(creatordate:iso-strict)%09%(contents:subject)"
_AS_THEY_ARE = b"* -text -ident -filter -working-tree-encoding\n"  # above every .gitattributes (gitattributes(5))
_SETTINGS = {
    "core.bare": "false", "core.fsmonitor": "false", "core.untrackedCache": "false", "core.quotePath": "false",
    "core.autocrlf": "false", "core.symlinks": "true", "gc.auto": "0", "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull, "core.excludesFile": os.devnull, "submodule.recurse": "false",
    "advice.addEmbeddedRepo": "false",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. id: 40 hex digits. at: ISO 8601. nested: folders that are repositories of their own, left out."""

    id: str
    at: str
    message: str
    nested: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The id as people see it."""
        return self.id[:ID_CHARS]


class SnapshotFailed(MoatError):
    """Git could not do it; what it said."""


class Snapshots:
    """The snapshots of one workspace. repository: where they are kept, instead of the usual place.

    Raises UsageError where git is missing or the workspace is no folder.
    """

    def __init__(self, home: Home, workspace: Path, repository: Path | None = None) -> None:
        if shutil.which("git") is None:
            raise UsageError("snapshots need git, which is not installed", hint="install git, e.g. apt-get install git")
        self._workspace = workspace.resolve()
        if not self._workspace.is_dir():
            raise UsageError(f"{workspace} is no folder", hint="name the workspace: moat snapshot … FOLDER")
        if home.root.resolve().is_relative_to(self._workspace):
            raise UsageError(f"{workspace} holds moat's own folder", hint="choose a folder that does not")
        name = hashlib.sha256(os.fsencode(self._workspace)).hexdigest()[:20]
        self._repository = repository or home.root / "snapshots" / name

    def create(self, message: str) -> Snapshot:
        """Keep the files as they are now. Raises SnapshotFailed."""
        self._prepare()
        with self._index() as index:
            tree = self._tree_of_now(index)
            nested = self._nested(index)
        commit = self._git("commit-tree", tree, "-m", message)
        self._git("update-ref", f"{_PREFIX}{time.time_ns():020d}", commit)
        return replace(self.all()[0], nested=nested)

    def create_if_changed(self, message: str) -> Snapshot | None:
        """Keep the files as they are now, unless the newest snapshot has them so. Raises SnapshotFailed."""
        newest = next(iter(self.all()), None)
        if newest is not None:
            with self._index() as index:
                if self._tree_of_now(index) == self._git("rev-parse", f"{newest.id}^{{tree}}"):
                    return None
        return self.create(message)

    def all(self) -> list[Snapshot]:
        """Return all snapshots, newest first."""
        if not self._repository.is_dir():
            return []
        lines = self._git("for-each-ref", "--sort=-refname", f"--format={_FIELDS}", _PREFIX).splitlines()
        parts = [line.split("\t", 2) for line in lines]
        return [Snapshot(commit, at, message) for commit, at, message in parts]

    def find(self, reference: str) -> Snapshot:
        """Return the one snapshot whose id begins so. Raises UsageError."""
        found = [each for each in self.all() if reference and each.id.startswith(reference)]
        if len(found) != 1:
            what = "no snapshot" if not found else f"{len(found)} snapshots"
            raise UsageError(f"{what} of {self._workspace} begins with {reference!r}", hint="run: moat snapshot list")
        return found[0]

    def diff(self, snapshot: Snapshot, *options: str) -> bytes:
        """Return what has changed since, as git shows it. options: of `git diff-tree`."""
        with self._index() as index:
            now = self._tree_of_now(index)
        return self._run("diff-tree", "--no-ext-diff", "--no-textconv", "-r", *options, snapshot.id, now)

    def restore(self, snapshot: Snapshot) -> Snapshot:
        """Bring the files back as they were, and return a snapshot of what was there before. Ignored files stay."""
        before = self.create(f"before {snapshot.short} was restored")
        with self._index() as index:
            self._tree_of_now(index)
            self._git("read-tree", "-m", "-u", before.id, snapshot.id, index=index)
        return before

    def remove(self, snapshot: Snapshot) -> None:
        """Forget a snapshot, and the files that no other has."""
        for name in self._git("for-each-ref", f"--points-at={snapshot.id}", "--format=%(refname)", _PREFIX).split():
            self._git("update-ref", "-d", name)
        self._git("gc", "--prune=now", "--quiet")

    def _prepare(self) -> None:
        if (self._repository / "HEAD").exists():
            return
        private_folder(self._repository)
        self._git("init", "--quiet", "--template=")
        for name, value in _SETTINGS.items():
            self._git("config", name, value)
        write_private(self._repository / "info" / "attributes", _AS_THEY_ARE)
        write_private(self._repository / "workspace", os.fsencode(self._workspace) + b"\n")

    @contextlib.contextmanager
    def _index(self) -> Iterator[Path]:
        """Lend an index that begins as the last one ended: files that have not changed since are not read again."""
        last, ours = self._repository / "index", self._repository / f"index.{os.getpid()}"
        if last.exists():
            shutil.copy2(last, ours)
        try:
            yield ours
            ours.replace(last)
        finally:
            ours.unlink(missing_ok=True)

    def _tree_of_now(self, index: Path) -> str:
        self._git("add", "--all", ".", index=index)
        return self._git("write-tree", index=index)

    def _nested(self, index: Path) -> tuple[str, ...]:
        entries = self._git("ls-files", "--stage", "-z", index=index).split("\0")
        return tuple(entry.partition("\t")[2] for entry in entries if entry.startswith("160000 "))

    def _git(self, *words: str, index: Path | None = None) -> str:
        return self._run(*words, index=index).decode("utf-8", "surrogateescape").rstrip("\n")

    def _run(self, *words: str, index: Path | None = None) -> bytes:
        env = {
            "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self._repository),
            "GIT_DIR": str(self._repository), "GIT_WORK_TREE": str(self._workspace), "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "moat", "GIT_AUTHOR_EMAIL": "moat@localhost",
            "GIT_COMMITTER_NAME": "moat", "GIT_COMMITTER_EMAIL": "moat@localhost",
        }  # fmt: skip
        if index is not None:
            env["GIT_INDEX_FILE"] = str(index)
        done = subprocess.run(["git", *words], cwd=self._workspace, env=env, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise SnapshotFailed(f"git {words[0]} failed: {said[-1] if said else done.returncode}")
        return done.stdout
