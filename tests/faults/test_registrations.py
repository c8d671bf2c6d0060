"""CLIs that die between the phases of a registration, and registrations at the very last moment."""

from __future__ import annotations

import asyncio
import shutil
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
from moat.trace.store import RunStore
from support.installation import eventually

from faults.counts import Counts, Seen

pytestmark = pytest.mark.timeout(600)

FIRST_PHASE = """
import os, sys
from pathlib import Path
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home
made = ensure_running(Home(Path(sys.argv[1]))).register(RegisterRequest(new_run_id(), needs_door=sys.argv[2] == "door"))
print(made.run_id, flush=True)
sys.stdin.read()
"""

# Makes a sandbox, and never comes to say so.
SANDBOX = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from dataclasses import replace
from pathlib import Path
from moat.api.runtimes import DoorTicket, Stdio
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from moat.runtimes.bubblewrap import Bubblewrap
from support.sealed import a_spec

async def main():
    made = ensure_running(Home(Path(sys.argv[1]))).register(RegisterRequest(new_run_id(), runtime="bubblewrap"))
    async def created(container_id):
        print(made.run_id, flush=True)
        await asyncio.Event().wait()
    spec = replace(a_spec(["sleep", "600"], private_folder(Path(sys.argv[3]) / "workspace")), run_id=made.run_id)
    ticket = DoorTicket(made.run_id, Path(made.door.folder), made.door.nonce)
    await Bubblewrap().launch(spec, ticket, Stdio(0, 2, 2), created)

asyncio.run(main())
"""
IMPATIENT = """
import sys
from moat.daemon import watch
watch.GRACE_S, watch.LINGER_S = 2.0, 0.2
from moat.daemon.main import main
sys.exit(main())
"""


async def test_a_run_whose_second_phase_never_comes_is_reaped_and_nothing_is_left(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GRACE_S", 0.05)
    monkeypatch.setattr(watch, "LINGER_S", 0.01)
    home = Home(tmp_path / "home")
    async with a_house(home) as house:
        for number in range(times * 4 + 2):
            await house.runs.register(a_request(f"run_{number:012x}", needs_door=number % 2 == 0))
            if number == 1:  # threads, and what is opened when it is first written to, are there now
                await until(lambda: _reaped(house) == 2)
                await house.parts.ledger.settled()
                await house.parts.auditor.flushed()
                tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
        await until(lambda: house.runs.list() == [])
        await until(lambda: _reaped(house) == times * 4 + 2)
        await until(lambda: len(asyncio.all_tasks()) <= tasks and _descriptors() <= descriptors)

        assert list(home.root.glob("doors/*")) == []
        await house.parts.ledger.settled()
        assert b"run_" not in (home.daemon / "runs.json").read_bytes()


def _reaped(house: House) -> int:
    return len([seen for seen in house.orchard.seen if seen[0] == "reaped"])


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.bubblewrap
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_what_a_cli_leaves_that_was_killed_between_the_phases_is_reaped_by_a_real_daemon(
    home: Home, tmp_path: Path, times: int, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "COMMAND", (sys.executable, "-P", "-c", IMPATIENT))
    client, kinds = ensure_running(home), ("door", "token", "sandbox")
    for kind in kinds:  # each opens something that stays open
        _killed_between_the_phases(home, tmp_path, kind)
    eventually("the first runs are reaped", lambda: client.runs() == [] and counts.now().gates == 0, 30)
    before = counts.now()

    for number in range(times):
        told = [_killed_between_the_phases(home, tmp_path, kind) for kind in kinds]

        eventually("every run is reaped", lambda: client.runs() == [], 30)
        counts.become(before)
        assert {RunStore(home).read(run_id).state for run_id in told} == {"lost"}, number
    assert before.gates == 0
    assert list(home.root.glob("inside/*")) == []


def _killed_between_the_phases(home: Home, tmp_path: Path, kind: str) -> str:
    """Have a CLI register a run, and die; return the run. kind: `sandbox` is one that is made, and never told of."""
    program = FIRST_PHASE if kind != "sandbox" else SANDBOX
    words = [sys.executable, "-c", program, str(home.root), kind, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cli:
        assert cli.stdout is not None
        run_id = cli.stdout.readline().decode().strip()
        assert run_id.startswith("run_")
        cli.send_signal(signal.SIGKILL)
    return run_id


def test_many_commands_at_once_make_one_daemon(home: Home, times: int, counts: Counts) -> None:
    words = [sys.executable, "-c", FIRST_PHASE, str(home.root), "token"]
    count = 50 if times >= 20 else 10
    held: Seen | None = None
    for _ in range(times):
        clis = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
        for cli in clis:
            out, _ = cli.communicate(timeout=120)
            assert out.startswith(b"run_")
        # A process that is being forked has its parent's command line for a moment, so has one that is just ending.
        eventually("there is one daemon", lambda: counts.daemons() == [living(home)])
        assert len(ensure_running(home).runs()) == count
        held = held or counts.now()
        counts.become(held)
        lifecycle.stop(home)
        eventually("there is no daemon", lambda: counts.daemons() == [])


def test_a_registration_at_the_last_moment_is_not_lost(home: Home, times: int, counts: Counts) -> None:
    before = counts.now()
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
    counts.become(before)
    assert not (home.daemon / "daemon.sock").exists()
    assert not (home.daemon / "daemon.lock").exists()
