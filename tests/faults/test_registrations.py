"""CLIs that die between the phases of a registration, and registrations at the very last moment."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from core.daemon.house import House, a_house, a_request
from core.daemon.making import until
from moat.daemon import lifecycle, watch
from moat.daemon.lifecycle import ensure_running, patiently
from moat.daemon.process import living
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from support.installation import eventually

from faults.counts import Counts

pytestmark = pytest.mark.timeout(600)

FIRST_PHASE = """
import os, sys
from pathlib import Path
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home
made = ensure_running(Home(Path(sys.argv[1]))).register(RegisterRequest(new_run_id(), needs_door=sys.argv[2] == "door"))
print(made.run_id, flush=True)
sys.stdin.read()
"""


async def test_a_run_whose_second_phase_never_comes_is_reaped_and_nothing_is_left(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GRACE_S", 0.05)
    monkeypatch.setattr(watch, "LINGER_S", 0.01)
    home = Home(tmp_path / "home")
    async with a_house(home) as house:
        before = (0, 0)
        for number in range(times * 4 + 2):
            await house.runs.register(a_request(f"run_{number:012x}", needs_door=number % 2 == 0))
            if number == 1:  # threads and the like are there now
                await until(lambda: _reaped(house) == 2)
                before = (len(asyncio.all_tasks()), _descriptors())
        await until(lambda: house.runs.list() == [])
        await until(lambda: _reaped(house) == times * 4 + 2)
        await until(lambda: (len(asyncio.all_tasks()), _descriptors()) == before)

        assert list(home.root.glob("doors/*")) == []
        await house.parts.ledger.settled()
        assert b"run_" not in (home.daemon / "runs.json").read_bytes()


def _reaped(house: House) -> int:
    return len([seen for seen in house.orchard.seen if seen[0] == "reaped"])


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_cli_killed_between_the_phases_leaves_a_run_that_the_daemon_still_knows_of(home: Home, times: int) -> None:
    client = ensure_running(home)
    for number in range(times):
        words = [sys.executable, "-c", FIRST_PHASE, str(home.root), "door" if number % 2 else "token"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cli:
            assert cli.stdout is not None
            run_id = cli.stdout.readline().decode().strip()
            cli.send_signal(signal.SIGKILL)
        assert run_id in [run.run_id for run in client.runs()]  # until the grace is over: the test above
    assert {run.state for run in client.runs()} == {"starting"}


def test_many_commands_at_once_make_one_daemon(home: Home, times: int, counts: Counts) -> None:
    words = [sys.executable, "-c", FIRST_PHASE, str(home.root), "token"]
    count = 50 if times >= 20 else 10
    for _ in range(max(1, times // 20)):
        clis = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
        for cli in clis:
            out, _ = cli.communicate(timeout=120)
            assert out.startswith(b"run_")
        assert counts.daemons() == [living(home)]
        assert len(ensure_running(home).runs()) == count
        lifecycle.stop(home)


def test_a_registration_at_the_last_moment_is_not_lost(home: Home, times: int) -> None:
    private_folder(home.daemon)
    text = home.config.read_text()
    home.config.write_text(text[:-1] + ', "daemon": {"idle_minutes": 0.002}}')
    for number in range(times * 2):
        client = ensure_running(home)
        if number % 2:
            eventually("the idle daemon has left", lambda: living(home) is None)
        made = patiently(home, client, lambda asked: asked.register(RegisterRequest(new_run_id(), needs_door=False)))

        assert made.run_id in [run.run_id for run in client.runs()]
        client.end(made.auth_token, None)
    eventually("the idle daemon leaves in the end", lambda: living(home) is None)
    assert not (home.daemon / "daemon.sock").exists()
    assert not (home.daemon / "daemon.lock").exists()
