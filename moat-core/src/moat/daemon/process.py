"""Which process is the daemon: its lock, which the kernel lets go when it dies, and its card in `daemon.json`.

    daemon.lock   held by the daemon as long as it lives; nobody else keeps it
    keep          there while the daemon is to stay, however long it has nothing to do
    daemon.json   {"pid", "started", "version", "proxy_port", "started_at"}: how to reach it when it does not answer

A process id alone proves nothing, it may be another program's by now; the lock does, and so does `started` (field 22 of
/proc/<pid>/stat).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import signal
import stat
import struct
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from moat.api.errors import DaemonError
from moat.api.light import dataclass
from moat.paths import Home, private_folder, set_aside, write_private
from moat.trace.values import decode, parsed

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, process id

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Card:
    """What the daemon wrote about itself. started: clock ticks after boot (boot_id). started_at: ISO 8601, UTC."""

    pid: int
    started: int
    version: str = ""
    proxy_port: int = 0
    started_at: str = ""
    boot_id: str = ""


def read_card(home: Home) -> Card | None:
    """Return the card of the last daemon; None when there is none. A broken one is set aside with a warning."""
    file = home.daemon / "daemon.json"
    try:
        return decode(Card, parsed(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as failure:
        _warn_aside(file, str(failure))
        return None


def write_card(home: Home, card: Card) -> None:
    """Replace the daemon's card."""
    write_private(home.daemon / "daemon.json", json.dumps(asdict(card), indent=2).encode())


def is_kept(home: Home) -> bool:
    """Return whether the daemon, whichever it is, stays when it has nothing to do."""
    return (home.daemon / "keep").exists()


def set_kept(home: Home, *, kept: bool) -> None:
    """Have the daemon, and whichever replaces it, stay when it has nothing to do, or not. Raises OSError."""
    if kept:
        write_private(home.daemon / "keep", b"")
    else:
        (home.daemon / "keep").unlink(missing_ok=True)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it is gone or only a zombie is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command's name, in parentheses, may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Return what tells this start of this machine from any other; "" where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def is_running(card: Card) -> bool:
    """Return whether the process that wrote the card still lives: same start, same user, same start of the machine."""
    if card.boot_id and card.boot_id != boot_id():
        return False
    return start_time(card.pid) == card.started and _owner(card.pid) == os.geteuid()


def _owner(pid: int) -> int | None:
    """Return whose process it is. Not by who owns its folder in /proc: that is root's when it is undumpable."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)


def living(home: Home) -> int | None:
    """Return the process id of a daemon that lives, well or not; None when there is none.

    The kernel's word on who holds the lock, and the card's should somebody have deleted the lock's file.
    """
    holder = _holder(home.daemon / "daemon.lock")
    if holder is None and (card := read_card(home)) is not None and is_running(card):
        return card.pid
    return holder


def send_signal(home: Home, number: signal.Signals) -> bool:
    """Signal the daemon; False when there is none. Never reaches a recycled process id."""
    if (pid := living(home)) is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if living(home) != pid:  # asked after the handle is held: it now means this process for good
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def hold_lock(home: Home, *, is_own: bool = False) -> int | None:
    """Take the daemon's lock for the life of this process and return its descriptor; None when a daemon lives.

    is_own: this process is the daemon, and its lock's file was removed.
    The process must never open the file again: closing any descriptor of it would let the lock go (fcntl(2)).
    """
    private_folder(home.daemon)
    if living(home) not in ((None, os.getpid()) if is_own else (None,)):
        return None
    file = home.daemon / "daemon.lock"
    descriptor = _open_lock(file)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):  # a daemon that leaves removes the file
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def remove_lock(home: Home) -> None:
    """Remove the lock's file: the last thing that its holder does."""
    with contextlib.suppress(OSError):
        (home.daemon / "daemon.lock").unlink()


def _open_lock(file: Path) -> int:
    """Open a lock file of ours, made if need be; what else stands in its place is set aside."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(2):
        try:
            descriptor = os.open(file, flags, 0o600)
        except OSError as failure:
            if failure.errno not in (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
                raise
            _warn_aside(file, os.strerror(failure.errno))
            continue
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            return descriptor
        os.close(descriptor)
        _warn_aside(file, "it is no lock file of this user's")
    raise DaemonError(f"{file} cannot be made a lock file", hint=f"look at {file}, and remove it")


def _warn_aside(file: Path, problem: str) -> None:
    with contextlib.suppress(OSError):
        log.warning("a broken file was set aside", extra={"path": str(set_aside(file)), "problem": problem})


def _holder(file: Path) -> int | None:
    """Return who holds the lock, without touching it: a probe that took it could make a starting daemon give up."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


@contextlib.contextmanager
def exclusively(file: Path) -> Iterator[None]:
    """Hold a file lock for a block, waiting for whoever has it; a holder that dies lets it go."""
    try:
        private_folder(file.parent)
        descriptor = _open_lock(file)
    except OSError as failure:
        hint = "is the disk full, or the folder read-only? run: moat doctor"
        raise DaemonError(f"{file} cannot be opened: {os.strerror(failure.errno or 0)}", hint=hint) from failure
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
