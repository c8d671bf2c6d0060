from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moat.api.errors import DaemonError
from moat.api.runs import RunInfo
from moat.daemon.client import DaemonClient
from moat.daemon.protocol import Health
from moat.paths import Home
from moat.runs import keep as module
from moat.runs.keep import is_live, keep_daemon
from moat.trace.store import RunStore

RUN_ID = "run_0123456789ab"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "moat")


def an_info(state: str) -> RunInfo:
    return RunInfo(RUN_ID, "calm-otter", "bubblewrap", "permissive", (), "/w", ("x",), "2026-01-01", state)  # type: ignore[arg-type] # one of the states


class Daemons:
    """Daemons that can be seen one after another, and how often one was started."""

    def __init__(self, *pids: int) -> None:
        self.pids = list(pids)
        self.started = 0
        self.failures = 0

    def health(self) -> Health:
        if not self.pids:
            raise DaemonError("the daemon cannot be reached")
        return Health(self.pids.pop(0), "1", 1, 1, "", 1.0, 1)

    def start(self, home: Home) -> DaemonClient:
        if self.failures:
            self.failures -= 1
            raise DaemonError("no space left")
        self.started += 1
        return DaemonClient(home)


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch) -> Daemons:
    made = Daemons()
    monkeypatch.setattr(DaemonClient, "health", lambda _: made.health())
    monkeypatch.setattr(module, "ensure_running", made.start)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    return made


async def test_a_daemon_that_dies_under_a_live_run_is_started_again(home: Home, daemons: Daemons) -> None:
    RunStore(home).write(an_info("running"))
    first = await asyncio.create_subprocess_exec("sleep", "60")
    daemons.pids = [first.pid]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        keeping = group.create_task(keep_daemon(home, RUN_ID))
        while daemons.pids:  # noqa: ASYNC110 # another thread's doing
            await asyncio.sleep(0.01)
        assert daemons.started == 0
        daemons.failures = 2
        first.kill()
        await first.wait()
        while daemons.started == 0:  # noqa: ASYNC110 # as above
            await asyncio.sleep(0.01)
        keeping.cancel()
    assert daemons.failures == 0


@pytest.mark.parametrize("state", ["stopped", "lost"])
async def test_a_daemon_that_ended_its_run_on_purpose_is_left_alone(home: Home, daemons: Daemons, state: str) -> None:
    RunStore(home).write(an_info(state))

    async with asyncio.timeout(30):
        await keep_daemon(home, RUN_ID)

    assert daemons.started == 0


def test_a_run_is_live_until_its_record_says_otherwise(home: Home) -> None:
    assert not is_live(home, RUN_ID)
    for state, live in (("starting", True), ("running", True), ("stopped", False), ("lost", False)):
        RunStore(home).write(an_info(state))
        assert is_live(home, RUN_ID) is live
