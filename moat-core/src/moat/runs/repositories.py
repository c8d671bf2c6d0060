"""A repository of a run's own, for one that works in a git worktree: what it commits is fetched once it is over.

    <MOAT_HOME>-copies/<run>.own/repository.git   the run's, writable: HEAD, refs, index, new objects
                                 record.json      whose it is
    project/.git/objects                          the user's, read-only inside

The user's own repository is in no run but for its objects: hooks, configuration, index, branches and reflogs are out of
reach, and git on this machine never works in a folder that a run could write. So nothing here trusts the run's either:
its branches are read as text, its objects are looked at by a repository of ours that takes them for hostile (fsck).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from moat.api.errors import MoatError
from moat.api.runs import Worktree
from moat.paths import UNWRITABLE, Home, private_folder, write_private
from moat.runs.git import GitFailed, git, git_says
from moat.runs.outcomes import OBJECTS_INSIDE, SUFFIX, Commits, repository_path, write_commits

MAX_TIPS = 1000  # branches that a run may leave
MAX_PACKED = 64 * 1024 * 1024
_HEX = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HEADS = "refs/heads/"
# What git inside needs to know of the user's configuration. Nothing of it runs anything inside but what is there.
_SETTINGS = re.compile(
    r"user\.(name|email)|remote\..*\.(url|fetch|pushurl|promisor|partialclonefilter)|branch\..*\.(remote|merge|rebase)|"
    r"core\.(filemode|ignorecase|symlinks|autocrlf|eol|longpaths|quotepath)|init\.defaultbranch|pull\.rebase|"
    r"extensions\.partialclone|filter\..*\.(clean|smudge|process|required)",
    re.IGNORECASE,
)
# How the user's repository takes objects: checked, but for faults that old histories have and that do no harm.
_CHECKED = ("protocol.file.allow=always", "fetch.fsckObjects=true", "fetch.fsck.zeroPaddedFilemode=ignore",
            "fetch.fsck.missingSpaceBeforeDate=ignore", "fetch.fsck.badTimezone=ignore")  # fmt: skip
_LOGIN = re.compile(r"^(https?://)[^/@]*@", re.IGNORECASE)


class CommitsLost(MoatError):
    """What a run committed could not be taken over; where it still is."""


@dataclass(frozen=True, slots=True)
class Record:
    """Whose repository it is. before: the branch's commit when the run began. seen: every branch then."""

    repository: Path
    admin: Path
    branch: str
    before: str
    seen: dict[str, str]


class OwnRepository:
    """One run's. worktree: what it works in."""

    def __init__(self, home: Home, run_id: str, worktree: Worktree | None = None) -> None:
        self._home = home
        self._run_id = run_id
        self._worktree = worktree
        self._folder = home.copies / f"{run_id}{SUFFIX}"
        self.path = repository_path(home, run_id)
        self._has_work = False

    async def make(self) -> None:
        """Make it: the branches and tags of the user's, the worktree's index, and no object yet. Raises GitFailed."""
        await asyncio.to_thread(self._make)

    def finish(self) -> None:
        """Take over what was committed, and remove it. Raises CommitsLost where that cannot be: it then stays."""
        self._has_work = True
        try:
            record = self._read_record()
            commits = self._take_over(record)
            write_commits(self._home, self._run_id, commits)
        except (*UNWRITABLE, MoatError, ValueError) as failure:
            problem = f"what the run committed could not be taken over ({failure}); it is still in {self.path}"
            hint = "run: moat wt list, which tries again; the files that it changed are in the worktree"
            raise CommitsLost(problem, hint=hint) from None
        self._has_work = False
        self.discard()

    def discard(self) -> None:
        """Remove it, unless there is work in it that is not taken over."""
        if not self._has_work:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        assert self._worktree is not None  # noqa: S101 # only who finishes what somebody else began has none
        repository, admin = self._worktree.repository, self._worktree.admin
        if (repository / "objects/info/alternates").exists():
            problem = f"{repository} borrows objects from another repository, which the run would not see"
            raise GitFailed(problem, hint="run: git repack -a -d && rm .git/objects/info/alternates")
        private_folder(self._folder)
        kind = git(repository, "rev-parse", "--show-object-format")
        _init(self.path, kind)
        (self.path / "objects/info/alternates").write_text(f"{OBJECTS_INSIDE}\n")
        refs = git(repository, "for-each-ref", "--format=%(objectname) %(refname)", _HEADS, "refs/tags", "refs/remotes")
        (self.path / "packed-refs").write_text(f"{refs}\n" if refs else "", errors="surrogateescape")
        (self.path / "HEAD").write_text(f"ref: {_HEADS}{self._worktree.branch}\n")
        for source in (admin / "index", repository / "shallow"):
            if source.exists():
                shutil.copyfile(source, self.path / source.name)
        for name, value in _settings_of(repository):
            git(self.path, "config", "--file", str(self.path / "config"), "--add", name, value)
        seen = tips_of(self.path)
        record = {
            "repository": str(repository), "admin": str(admin), "branch": self._worktree.branch,
            "before": seen[_HEADS + self._worktree.branch], "seen": seen,
        }  # fmt: skip
        write_private(self._folder / "record.json", json.dumps(record).encode())

    def _read_record(self) -> Record:
        data = json.loads((self._folder / "record.json").read_bytes())
        return Record(Path(data["repository"]), Path(data["admin"]), data["branch"], data["before"], data["seen"])

    def _take_over(self, record: Record) -> Commits:
        """Fetch what is new, move the branch, and keep other branches of the run's below refs/moat/."""
        tips = {name: tip for name, tip in tips_of(self.path).items() if record.seen.get(name) != tip}
        if not tips:
            return Commits(record.branch, record.before, record.before)
        own, kept = _HEADS + record.branch, f"refs/moat/{self._run_id}/"
        self._fetch(record, tips, kept)
        after = tips.get(own, record.before)
        moved = own not in tips or self._move(record, after)
        if own in tips and moved:
            git(record.repository, "update-ref", "-d", kept + record.branch)
        others = tuple(sorted(kept + name.removeprefix(_HEADS) for name in tips if name != own or not moved))
        span = f"{record.before}..{after}"
        return Commits(record.branch, record.before, after, int(git(record.repository, "rev-list", "--count", span)),
                       moved, others)  # fmt: skip

    def _fetch(self, record: Record, tips: dict[str, str], kept: str) -> None:
        """Bring tips into the user's repository, below kept: whole, checked, and by way of a repository of ours."""
        objects = self.path / "objects"
        purge(objects)
        clean = self._folder / "clean.git"
        shutil.rmtree(clean, ignore_errors=True)
        _init(clean, git(record.repository, "rev-parse", "--show-object-format"))
        (clean / "objects/info/alternates").write_text(f"{record.repository / 'objects'}\n{objects}\n")
        if (record.repository / "shallow").exists():
            shutil.copyfile(record.repository / "shallow", clean / "shallow")
        for name, tip in tips.items():
            git(clean, "--git-dir", str(clean), "update-ref", name, tip)
        spans = [f"+{name}:{kept}{name.removeprefix(_HEADS)}" for name in tips]
        quietly = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        settings = [word for setting in _CHECKED for word in ("-c", setting)]
        git(record.repository, *settings, "fetch", *quietly, str(clean), *spans)

    def _move(self, record: Record, after: str) -> bool:
        """Move the user's branch, if it is where it was, and the worktree's index with it; its files are there."""
        ref = _HEADS + record.branch
        if (record.admin / "index.lock").exists():  # or the branch would be moved without its index
            raise GitFailed(f"git is at work in the worktree: there is {record.admin / 'index.lock'}")
        if not git_says(record.repository, "update-ref", "-m", f"moat: {self._run_id}", ref, after, record.before):
            return False
        if _plain(record.admin / "HEAD", 1024).strip() == f"ref: {ref}":
            git(record.repository, "--git-dir", str(record.admin), "read-tree", "--reset", after)
        return True


def recover_commits(home: Home, repository: Path, over: Collection[str]) -> list[str]:
    """Take over what runs in worktrees of a repository committed whose holder was killed. Returns their ids.

    over: runs that have certainly ended. Raises CommitsLost.
    """
    folders = {run_id: home.copies / f"{run_id}{SUFFIX}" for run_id in over}
    found = sorted(run_id for run_id, folder in folders.items() if _is_of(folder, repository))
    for run_id in found:
        OwnRepository(home, run_id).finish()
    return found


def tips_of(repository: Path) -> dict[str, str]:
    """Return the branches of a repository that is not trusted, and its HEAD where that is on none: name → commit.

    Only plain files are read, and no git is asked. Names that no branch can have are left out.
    """
    found: dict[str, str] = {}
    for line in _plain(repository / "packed-refs", MAX_PACKED).splitlines():
        tip, _, name = line.partition(" ")
        if name.startswith(_HEADS):
            found[name] = tip
    for path in _files(repository / "refs" / "heads"):
        found[path.relative_to(repository).as_posix()] = _plain(path, 256).strip()
    head = _plain(repository / "HEAD", 1024).strip()
    if _HEX.fullmatch(head) and head not in found.values():
        found[f"{_HEADS}HEAD"] = head
    return {name: tip for name, tip in found.items() if _HEX.fullmatch(tip) and _is_name(name)}


def purge(objects: Path) -> None:
    """Remove from a folder of objects all that is no plain object: links, and what leads git elsewhere (`info`)."""
    if objects.is_symlink() or not objects.is_dir():
        raise ValueError("the run's objects are no folder any more")
    info = objects / "info"
    if info.is_symlink() or info.is_file():
        info.unlink()
    shutil.rmtree(info, ignore_errors=True)
    for top, folders, names in os.walk(objects):
        for name in (*folders, *names):
            mode = (Path(top) / name).lstat().st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                (Path(top) / name).unlink()


def _init(path: Path, kind: str) -> None:
    git(path.parent, "init", "--quiet", "--template=", "--bare", f"--object-format={kind}", str(path))
    git(path, "config", "--file", str(path / "config"), "core.bare", "false")
    (path / "objects/info").mkdir(exist_ok=True)


def _settings_of(repository: Path) -> Iterator[tuple[str, str]]:
    """Yield what of the user's configuration a run gets; logins in addresses are left out."""
    for entry in git(repository, "config", "--list", "-z").split("\0"):
        name, _, value = entry.partition("\n")
        if _SETTINGS.fullmatch(name):
            yield name, _LOGIN.sub(r"\1", value)


def _is_of(folder: Path, repository: Path) -> bool:
    try:
        data = json.loads((folder / "record.json").read_bytes())
        return bool(data["repository"] == str(repository))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _plain(path: Path, limit: int) -> str:
    """Return a plain file's text; nothing for whatever else has its name (a pipe would block, a link leads away)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(limit).decode("utf-8", "surrogateescape")


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_symlink() or folder.parent.is_symlink():
        return
    for top, _, names in os.walk(folder):
        yield from (Path(top) / name for name in sorted(names)[:MAX_TIPS])


def _is_name(name: str) -> bool:
    """Whether git takes it for a branch's (git-check-ref-format(1))."""
    parts = name.split("/")
    if any(not part or part.startswith(".") or part.endswith((".lock", ".")) for part in parts):
        return False
    return ".." not in name and "@{" not in name and not re.search(r"[\x00-\x20\x7f~^:?*\[\\]", name)
