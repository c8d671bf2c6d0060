from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.process import living, read_card
from moat.paths import Home
from support.installation import eventually

pytestmark = pytest.mark.timeout(60)  # real processes

TAKE = """
import sys, time
from pathlib import Path
from moat.daemon.process import hold_lock
from moat.paths import Home
assert hold_lock(Home(Path(sys.argv[1]))) is not None
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["daemon.sock", "daemon.lock", "daemon.json"])
def test_what_is_removed_under_a_living_daemon_comes_back(daemon_home: Home, name: str) -> None:
    pid = ensure_running(daemon_home).health().pid
    before, held = read_card(daemon_home), 0

    for turn in range(3):
        (daemon_home.daemon / name).unlink()
        eventually(f"{name} is there again", (daemon_home.daemon / name).exists)

        assert ensure_running(daemon_home).health().pid == pid
        assert living(daemon_home) == pid
        if turn == 0:  # all that a daemon opens in its first seconds, its audit say, is open by now
            held = _descriptors(pid)
    assert read_card(daemon_home) == before
    eventually("what was replaced is let go", lambda: _descriptors(pid) <= held)


def test_a_daemon_whose_place_is_taken_gives_way_and_touches_nothing(daemon_home: Home) -> None:
    pid = ensure_running(daemon_home).health().pid
    card = daemon_home.daemon / "daemon.json"
    os.kill(pid, signal.SIGSTOP)
    (daemon_home.daemon / "daemon.lock").unlink()
    card.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, str(daemon_home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        os.kill(pid, signal.SIGCONT)

        eventually("the first daemon is gone", lambda: _reaped(pid))

        assert (daemon_home.daemon / "daemon.lock").exists()
        assert living(daemon_home) == other.pid
        other.kill()
    assert DaemonClient(daemon_home)
    assert Path(daemon_home.daemon / "daemon.sock").exists()  # stale: the next one replaces it


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _reaped(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
