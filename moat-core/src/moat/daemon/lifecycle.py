"""Starts, finds and stops the daemon, from any command. Standard library only, like the client.

    ensure_running: healthy? ── yes ─▶ older than us, and hands its runs over? ─ no ──▶ client
                     │                  └ yes ─▶ spawn lock ─▶ asked to leave ─▶ spawned again: runs restored
                     └ no ─▶ spawn lock ─▶ healthy now? ─▶ alive but silent? error ─▶ dead: spawn ─▶ wait for health

The daemon outlives whoever spawned it and gets nothing of the caller: not its tokens, its folder or its terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import moat
from moat.api.errors import DaemonError, DaemonLeaving, DaemonUnreached
from moat.daemon.client import HEALTH_TIMEOUT_S, DaemonClient
from moat.daemon.environment import for_daemon
from moat.daemon.process import exclusively, living, send_signal, set_kept
from moat.daemon.protocol import Health
from moat.daemon.versions import should_replace
from moat.paths import Home, private_folder, set_aside

T = TypeVar("T")

COMMAND = (sys.executable, "-P", "-m", "moat.daemon.main")  # -P: no module of the current folder, which is /
START_TIMEOUT_S = 20.0  # a cold start on a slow disk; a warm one takes well under a second
STOP_TIMEOUT_S = 20.0  # for renewals, requests and exchanges, each of which the daemon bounds, and some
LEAVE_TIMEOUT_S = 25.0  # as before, and until no run is half started
KILL_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 5.0  # for the answer alone
LOG_LINES_SHOWN = 8
_ATTEMPTS = 3
_POLL_S = 0.02


def ensure_running(home: Home) -> DaemonClient:
    """Return a client of a healthy daemon, starting one if there is none; any number of callers make one daemon.

    Raises DaemonError with the end of the daemon's log when it does not start, and another one when a daemon lives but
    does not answer: that one is never replaced behind its back, since it holds the doors of live runs.
    """
    client = running(home)
    if client is not None:
        return client
    client = DaemonClient(home)
    with exclusively(home.daemon / "spawn.lock"):
        health = _health(client)
        if health is not None and not _is_good(health):
            _leave(home)
            health = None
        if health is None:
            _start(home, client)
    return client


def running(home: Home) -> DaemonClient | None:
    """Return a client of a daemon that is there, and need not be replaced; None otherwise. Starts nothing."""
    client = DaemonClient(home)
    return client if _is_good(_health(client)) else None


def restart(home: Home) -> DaemonClient:
    """Replace the daemon by a new one, which takes the live runs over; without one, start it. Raises DaemonError."""
    with exclusively(home.daemon / "spawn.lock"):
        if living(home) is not None:
            _leave(home)
        client = DaemonClient(home)
        _start(home, client)
    return client


def patiently(home: Home, client: DaemonClient, ask: Callable[[DaemonClient], T]) -> T:
    """Return what ask gets of the daemon, or of the next one should this one be leaving just now.

    For what may be asked twice: a registration that got no answer is refused as used before, and reaped.
    """
    for _ in range(_ATTEMPTS):
        try:
            return ask(client)
        except (DaemonLeaving, DaemonUnreached):
            client = ensure_running(home)
    return ask(client)


def status(home: Home) -> Health | None:
    """Return the daemon's state, None when it does not run. Raises DaemonError when it lives but does not answer."""
    return _patient_health(home, DaemonClient(home))


def stop(home: Home) -> bool:
    """End the daemon and wait until it is gone; False when none was running. One that hangs is killed.

    Its runs end with it, and `moat proxy start --keep` is over. Raises DaemonError when it cannot be ended.
    """
    with _unhindered(home):
        with contextlib.suppress(OSError):
            set_kept(home, kept=False)
        if living(home) is None:
            return False
        with contextlib.suppress(DaemonError):
            DaemonClient(home).shutdown(SHUTDOWN_TIMEOUT_S)
            if _gone(home, STOP_TIMEOUT_S):
                return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not send_signal(home, number) or _gone(home, KILL_TIMEOUT_S):
                return True
        raise DaemonError("the daemon cannot be ended", hint=f"end process {living(home)} by hand")


def log_tail(home: Home, lines: int = LOG_LINES_SHOWN) -> str:
    """Return the last lines of the daemon's log, for an error."""
    try:
        with (home.daemon / "daemon.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8_192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@contextlib.contextmanager
def _unhindered(home: Home) -> Iterator[None]:
    """Keep others from starting a daemon for a block; nobody can in a read-only folder, where no lock can be opened."""
    with contextlib.ExitStack() as stack:
        if not _is_read_only(home.daemon):
            stack.enter_context(exclusively(home.daemon / "spawn.lock"))
        yield


def _is_read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _is_good(health: Health | None) -> bool:
    return health is not None and not should_replace(moat.__version__, health)


def _leave(home: Home) -> None:
    """Have the daemon leave its runs to the next one. Raises DaemonError when it does not."""
    if send_signal(home, signal.SIGTERM) and not _gone(home, LEAVE_TIMEOUT_S):
        raise DaemonError("the daemon does not leave", hint="run: moat proxy stop")


def _start(home: Home, client: DaemonClient) -> None:
    if _patient_health(home, client) is not None:
        return
    process = _spawn(home)
    if _wait(lambda: _health(client), START_TIMEOUT_S, lambda: process.poll() is not None) is None:
        raise _failed(home, process)
    process.returncode = 0  # left running on purpose: without this, Popen warns that nobody waited for it


def _patient_health(home: Home, client: DaemonClient) -> Health | None:
    """Return the health of a daemon, which may be starting just now; None when none lives."""
    health = _wait(lambda: _health(client), START_TIMEOUT_S, lambda: living(home) is None)
    if health is None and (pid := living(home)) is not None:
        raise DaemonError(f"the daemon (process {pid}) is alive but does not answer", hint="run: moat proxy stop")
    return health


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    log_file = _open_log(home)
    try:
        return subprocess.Popen(
            [*COMMAND, "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            cwd="/",
            env=for_daemon(os.environ),
            start_new_session=True,
        )
    finally:
        os.close(log_file)


def _open_log(home: Home) -> int:
    file = home.daemon / "daemon.log"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        private_folder(home.daemon)
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            set_aside(file)
        return os.open(file, flags, 0o600)
    except OSError as failure:
        hint = "is the disk full, or the folder read-only? run: moat doctor"
        raise DaemonError(f"{file} cannot be opened: {os.strerror(failure.errno or 0)}", hint=hint) from failure


def _failed(home: Home, process: subprocess.Popen[bytes]) -> DaemonError:
    if process.poll() is None:
        process.kill()
        process.wait()
        problem = f"the daemon did not become ready within {START_TIMEOUT_S:g} s"
    else:
        problem = f"the daemon ended at once (exit code {process.returncode})"
    tail = log_tail(home)
    return DaemonError(f"{problem}; its log ends:\n{tail}" if tail else problem, hint=f"see {home.daemon}/daemon.log")


def _health(client: DaemonClient) -> Health | None:
    try:
        return client.health(HEALTH_TIMEOUT_S)
    except DaemonError:
        return None


def _gone(home: Home, timeout_s: float) -> bool:
    return _wait(lambda: True if living(home) is None else None, timeout_s, lambda: False) is True


def _wait(ask: Callable[[], T | None], timeout_s: float, is_hopeless: Callable[[], bool]) -> T | None:
    """Return the first answer that ask gives within timeout_s; None when there is none, or no hope for one."""
    deadline = time.monotonic() + timeout_s
    while (answer := ask()) is None and time.monotonic() < deadline and not is_hopeless():
        time.sleep(_POLL_S)
    return answer
