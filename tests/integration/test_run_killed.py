"""kill -9 of each process that a run is made of: nothing of it lives on, and the next command works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, end, eventually, installation
from support.supervisors import supervisor_of

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(90)]

SECONDS = f"51423.{os.getpid()}"  # another suite may be running beside this one
SLEEP = f"trap '' TERM; echo ready; sleep {SECONDS}"
SLEEPER = f"sleep\0{SECONDS}\0".encode()


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        yield made


@pytest.fixture
def live(moat: Installation) -> Iterator[subprocess.Popen[bytes]]:
    process = started(moat)
    yield process
    end(process)


def started(moat: Installation) -> subprocess.Popen[bytes]:
    process = moat.start("run", "work", "--runtime", "bubblewrap", "--name", "victim", "--", "sh", "-c", SLEEP)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == b"ready\n", (line, process.communicate()[1], moat.logs())
    return process


def test_the_cli_killed_ends_the_command_and_what_it_wrote(moat: Installation, live: subprocess.Popen[bytes]) -> None:
    gate, sleeper = _gate_of(live.pid), _sleeper()

    live.send_signal(signal.SIGKILL)

    eventually("gate and command are gone", lambda: not _lives(gate) and not _lives(sleeper))
    _works(moat)


def test_the_supervisor_of_a_detached_run_killed_ends_the_command(moat: Installation) -> None:
    options = ("-d", "--runtime", "bubblewrap", "--name", "victim")
    moat.ok("run", *options, "work", "--", "sh", "-c", SLEEP)
    supervisor = supervisor_of("victim")
    gate, sleeper = _gate_of(supervisor), _sleeper()

    os.kill(supervisor, signal.SIGKILL)

    eventually("gate and command are gone", lambda: not _lives(gate) and not _lives(sleeper))
    eventually("the run is over", lambda: _live(moat)[0]["state"] in ("stopped", "lost"))
    assert moat.run("wait", "victim").returncode != 0
    _works(moat)


def test_the_gate_killed_ends_the_command_and_the_cli_says_so(
    moat: Installation, live: subprocess.Popen[bytes]
) -> None:
    sleeper = _sleeper()

    os.kill(_gate_of(live.pid), signal.SIGKILL)

    _, err = live.communicate(timeout=30)
    assert live.returncode == 1
    assert b"error: the gate ended" in err
    eventually("the command is gone", lambda: not _lives(sleeper))
    _works(moat)


def test_the_worker_killed_is_replaced_and_the_run_goes_on(moat: Installation, live: subprocess.Popen[bytes]) -> None:
    worker = _status(moat)["worker_pid"]
    assert isinstance(worker, int)

    os.kill(worker, signal.SIGKILL)

    eventually("there is another worker", lambda: _status(moat).get("worker_pid") not in (0, worker, None))
    assert live.poll() is None
    _works(moat)


def test_the_daemon_killed_is_replaced_and_the_run_goes_on(moat: Installation, live: subprocess.Popen[bytes]) -> None:
    sleeper = _sleeper()
    for _ in range(2):
        killed = moat.daemon_pid()
        os.kill(killed, signal.SIGKILL)

        eventually("its CLI has started another", lambda killed=killed: _pid(moat) not in (None, killed), 30)
        assert [(run["name"], run["state"]) for run in _live(moat)] == [("victim", "running")]
    _works(moat)
    assert _lives(sleeper)
    assert live.poll() is None

    live.send_signal(signal.SIGTERM)
    live.send_signal(signal.SIGINT)
    _, err = live.communicate(timeout=30)
    assert live.returncode >= 128
    assert b"victim" in err, err  # the next daemon knew the run, and what it did


def test_the_daemon_stopped_on_purpose_stops_the_run_and_stays_away(
    moat: Installation, live: subprocess.Popen[bytes]
) -> None:
    moat.ok("proxy", "stop")

    live.communicate(timeout=60)

    assert live.returncode != 0
    assert _status(moat) == {"running": False}


def test_sigterm_to_the_cli_kills_what_does_not_listen(moat: Installation, live: subprocess.Popen[bytes]) -> None:
    sleeper = _sleeper()

    live.send_signal(signal.SIGTERM)
    live.send_signal(signal.SIGINT)

    live.communicate(timeout=30)
    assert live.returncode >= 128
    assert not _lives(sleeper)
    _works(moat)


def _works(moat: Installation) -> None:
    """Check that the next command works, and that nothing is left to be cleaned by hand."""
    done = moat.run("run", "work", "--runtime", "bubblewrap", "--name", "next", "--", "echo", "fine")
    assert (done.stdout, done.returncode) == (b"fine\n", 0), done.stderr


def _status(moat: Installation) -> dict[str, object]:
    return dict(json.loads(moat.run("proxy", "status", "--json").stdout or b"{}"))


def _pid(moat: Installation) -> object:
    return _status(moat).get("pid")


def _live(moat: Installation) -> list[dict[str, str]]:
    return list(json.loads(moat.ok("list", "--json")))


def _gate_of(cli: int) -> int:
    children = Path(f"/proc/{cli}/task/{cli}/children").read_text().split()
    return next(int(pid) for pid in children if b"gate.py" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _sleeper() -> int:
    """Return the process of the command's child, seen from outside, once it is there."""
    eventually("the command sleeps", lambda: _sleepers() != [])
    return _sleepers()[0]


def _sleepers() -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _read(path) == SLEEPER]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
