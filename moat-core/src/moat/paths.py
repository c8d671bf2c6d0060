"""Where moat keeps things, all under MOAT_HOME (default `~/.moat`), every folder 0700.

config.yaml              settings: upstream, image
approvals/<hash>.json    what of a moat.yaml the user has said yes to
audit.db                 what was done with whose authority; its writer is the daemon
audit.json, audit.key    where the key that signs it lives; the key itself when there is no keyring
audit-notes/             what the next daemon is to enter there
store.json, key          where the store's key lives; the key itself when there is no keyring
credentials/<name>.json  encrypted
profiles/<name>/         the credentials of another profile
ca/ca.pem, ca/ca.key     the installation's certificate authority
daemon/                  daemon.sock daemon.lock images.lock daemon.json daemon.log runs.json routes.json
doors/<run>/door.sock    one folder a run, nothing else in it
inside/<run>/            files of ours that a run sees, none secret
../<MOAT_HOME>-copies/   copies of workspaces, and repositories of runs in worktrees, for as long as these last
../<MOAT_HOME>-volumes/  what the runs of a workspace keep from one to the next
../<MOAT_HOME>-sessions/ what agents keep from run to run, a folder for each workspace
snapshots/<workspace>/   git repositories of ours
runs/<run>/              run.json network.jsonl names.json
                         its launcher's: console.jsonl control.sock changed.json commits.json result.patch
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from moat.api.errors import UsageError
from moat.api.light import dataclass

UNWRITABLE = (OSError, UsageError)  # of write_private: a disk that says no, a folder that others may change
_DRAFT = re.compile(r"\..+\.([0-9]{1,9})\.new")  # of write_private, with the process that writes it
CONTROL_SOCKET = "control.sock"
MAX_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes (unix(7)); a margin for the terminator and a suffix


@dataclass(frozen=True, slots=True)
class Home:
    """One installation's folder. Properties are paths only; nothing is created by looking."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings file; may be absent."""
        return self.root / "config.yaml"

    @property
    def approvals(self) -> Path:
        """What the user has said yes to, one file each."""
        return self.root / "approvals"

    @property
    def audit(self) -> Path:
        """The audit's log, an SQLite file."""
        return self.root / "audit.db"

    @property
    def audit_notes(self) -> Path:
        """What was done while no daemon was there to enter it, one file each."""
        return self.root / "audit-notes"

    @property
    def credentials(self) -> Path:
        """Encrypted credentials, one file each."""
        return self.root / "credentials"

    def credentials_of(self, profile: str) -> Path:
        """Return the folder of one profile's credentials; "" is the default profile."""
        return self.root / "profiles" / profile if profile else self.credentials

    @property
    def ca(self) -> Path:
        """The certificate authority's folder."""
        return self.root / "ca"

    @property
    def daemon(self) -> Path:
        """The daemon's folder: management socket, lock, log."""
        return self.root / "daemon"

    @property
    def runs(self) -> Path:
        """One folder per run, never shown inside a run."""
        return self.root / "runs"

    @property
    def copies(self) -> Path:
        """Copies of workspaces that runs work on, one folder each. Beside the root, which is never shown to a run."""
        return self.root.with_name(f"{self.root.name}-copies")

    @property
    def volumes(self) -> Path:
        """What runs keep from one to the next, a folder for each workspace. Beside the root, as copies are."""
        return self.root.with_name(f"{self.root.name}-volumes")

    def volumes_of(self, workspace: Path) -> Path:
        """Return the folder with the volumes of one workspace, a real path."""
        import hashlib

        return self.volumes / hashlib.sha256(os.fsencode(workspace)).hexdigest()[:20]

    @property
    def sessions(self) -> Path:
        """What agents keep from run to run. Beside the root, since runs write there."""
        return self.root.with_name(f"{self.root.name}-sessions")

    def door(self, run_id: str) -> Path:
        """Return the folder that holds only this run's door socket."""
        return self.root / "doors" / run_id

    def inside(self, run_id: str) -> Path:
        """Return the folder with the files of ours that this run sees."""
        return self.root / "inside" / run_id

    def run(self, run_id: str) -> Path:
        """Return this run's own folder."""
        return self.runs / run_id

    def control(self, run_id: str) -> Path:
        """Return the socket at which whoever holds this run is reached."""
        return self.run(run_id) / CONTROL_SOCKET


def find_home(env: dict[str, str] | None = None) -> Home:
    """Return the installation that env (default: this process's) names. Raises UsageError for none.

    None is a relative MOAT_HOME, and whatever is no folder.
    """
    values = os.environ if env is None else env
    if (named := values.get("MOAT_HOME")) and not Path(named).is_absolute():
        raise UsageError(f"MOAT_HOME is {named!r}, which is not an absolute path", hint="export MOAT_HOME=/…")
    root = Path(named) if named else Path.home() / ".moat"
    if _is_no_folder(root):
        raise UsageError(f"{root} is no folder, and moat keeps all in one", hint="name another: export MOAT_HOME=/…")
    return Home(root)


def _is_no_folder(path: Path) -> bool:
    """Whether something else stands there. What cannot be looked at is told by whoever needs it."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def current_folder() -> Path:
    """Return the folder that this process works in. Raises UsageError when it has been removed meanwhile."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the folder that you are in does not exist any more", hint="cd to another one") from None


def private_folder(path: Path) -> Path:
    """Make path and its missing parents with mode 0700, whatever the umask; return it.

    Raises UsageError when it exists and belongs to somebody else or is open to others.
    """
    if not path.is_dir():
        if path.parent != path and not path.parent.is_dir():
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise UsageError(f"{path} belongs to another user", hint=f"run: chown -R {os.geteuid()} {path}")
    if status.st_mode & 0o022:
        raise UsageError(f"{path} can be written by others", hint=f"run: chmod 700 {path}")
    return path


def remove_tree(path: Path) -> None:
    """Remove a folder and all that a run left in it, folders too that nobody may write. Raises OSError.

    Only where nobody else can change what is below path meanwhile. One that is not there is fine.
    """
    if not os.path.lexists(path):
        return
    if os.geteuid():  # root needs no leave
        _open_up(path)
    try:
        import shutil  # not at the top: it brings three compressors to every start

        shutil.rmtree(path)
    except (OSError, RecursionError) as failure:  # one deeper than Python goes is made by who means harm
        import subprocess

        subprocess.run(["rm", "-rf", "--", str(path)], stderr=subprocess.DEVNULL, check=False)
        if os.path.lexists(path):
            raise failure if isinstance(failure, OSError) else OSError(f"{path} is too deep") from None


def entries_below(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what lies below a folder, at any depth, each folder before what is in it; no link is followed.

    What cannot be looked into is passed over. `os.walk` would call itself, and a run can make it do so too often.
    """
    waiting = [str(path)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _open_up(path: Path) -> None:
    path.chmod(0o700)
    for entry in entries_below(path):
        if entry.is_dir(follow_symlinks=False):
            Path(entry.path).chmod(0o700)


def set_aside(path: Path) -> Path:
    """Rename what stands in the way, a file or anything else, so that somebody can look at it; return its new path."""
    for number in range(1, 100):
        aside = path.with_name(f"{path.name}.broken" if number == 1 else f"{path.name}.broken-{number}")
        if not os.path.lexists(aside) or number == 99:
            break
    path.replace(aside)
    return aside


def write_private(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file with mode 0600 in one step: readers see the old or the new contents, a crash loses neither.

    lasting: nor does a loss of power; it costs a wait for the disk, so not for what means nothing after the next boot.
    Raises OSError, and UsageError as private_folder does: whoever must go on catches UNWRITABLE.
    """
    private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if lasting:
        _sync_folder(path.parent)


def remove_drafts(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in a folder; one that lives may still write."""
    with contextlib.suppress(OSError):
        for draft in folder.glob(".*.new"):
            match = _DRAFT.fullmatch(draft.name)
            if match is not None and not Path(f"/proc/{match[1]}").exists():
                draft.unlink()


def _sync_folder(folder: Path) -> None:
    """Have a rename outlive a loss of power, where the file system can; it is done either way."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def bind_by_folder(sock: socket.socket, path: Path) -> None:
    """Bind a unix socket at path, however long it is, under a name that does not show the path."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def socket_address(path: Path) -> str:
    """Return a name for a unix socket's path that bind and connect accept however long the path is.

    A long path is named through a descriptor of its folder, which stays open for the life of the process.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"
