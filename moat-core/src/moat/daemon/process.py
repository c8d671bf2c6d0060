"""Which process is the daemon: its lock, which the kernel lets go when it dies, and its card in `daemon.json`.

    daemon.lock   held by the daemon as long as it lives; nobody else keeps it
    daemon.json   {"pid", "started", "version", "proxy_port", "started_at"}: how to reach it when it does not answer

A process id alone proves nothing, it may be another program's by now; the lock does, and so does `started` (field 22 of
/proc/<pid>/stat).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from moat.paths import Home, private_folder, write_private
from moat.trace.values import decode

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, process id

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Card:
    """What the daemon wrote about itself. started: clock ticks after boot. started_at: ISO 8601, UTC."""

    pid: int
    started: int
    version: str = ""
    proxy_port: int = 0
    started_at: str = ""


def read_card(home: Home) -> Card | None:
    """Return the card of the last daemon; None when there is none. A broken one is set aside with a warning."""
    file = home.daemon / "daemon.json"
    try:
        return decode(Card, json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as failure:
        log.warning("a broken daemon.json was set aside", extra={"path": str(file), "problem": str(failure)})
        with contextlib.suppress(OSError):
            file.replace(file.with_name("daemon.json.broken"))
        return None


def write_card(home: Home, card: Card) -> None:
    """Replace the daemon's card."""
    write_private(home.daemon / "daemon.json", json.dumps(asdict(card), indent=2).encode())


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it is gone or only a zombie is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command's name, in parentheses, may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def is_running(card: Card) -> bool:
    """Return whether the process that wrote the card still lives."""
    return start_time(card.pid) == card.started


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


def hold_lock(home: Home) -> int | None:
    """Take the daemon's lock for the life of this process and return its descriptor; None when a daemon lives.

    The process must never open the file again: closing any descriptor of it would let the lock go (fcntl(2)).
    """
    private_folder(home.daemon)
    if living(home) is not None:
        return None
    descriptor = os.open(home.daemon / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _holder(file: Path) -> int | None:
    """Return who holds the lock, without touching it: a probe that took it could make a starting daemon give up."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
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
    private_folder(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
