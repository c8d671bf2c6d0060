from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runs import RunInfo
from moat.paths import CONTROL_SOCKET, Home, private_folder
from moat.runs import reach
from moat.runs.control import Control
from moat.trace.store import RunStore

INFO = RunInfo(
    "run_0123456789ab", "calm-otter", "fake", "permissive", (), "/srv/work", ("true",), "2026-01-01T00:00:00Z",
    "running",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(private_folder(tmp_path / "moat"))
    RunStore(made).write(INFO)
    return made


def ignore(number: int, grace_s: float | None = None) -> None:
    del number, grace_s


def test_a_run_without_its_launcher_is_said_to_have_none(home: Home) -> None:
    with pytest.raises(SandboxFailed, match="calm-otter cannot be reached"):
        reach.connected(home, INFO)


async def test_a_signal_arrives_with_its_grace(home: Home) -> None:
    came: asyncio.Future[tuple[int, float | None]] = asyncio.get_running_loop().create_future()
    control = Control()
    async with (
        control.talking(lambda number, grace_s: came.set_result((number, grace_s))),
        control.serving(home.run(INFO.run_id)),
    ):
        await reach.send_signal(reach.connected(home, INFO), 15, 2.5)
        async with asyncio.timeout(30):
            assert await came == (15, 2.5)


async def test_a_run_is_awaited_until_it_is_written_down_as_over(home: Home) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reach.awaited(home, INFO))
        await asyncio.sleep(2 * reach.POLL_S)
        assert not waiting.done()
        RunStore(home).write(replace(INFO, state="stopped", exit_code=5))
        async with asyncio.timeout(30):
            assert (await waiting).exit_code == 5


async def test_a_wait_may_have_a_limit(home: Home) -> None:
    assert (await reach.awaited(home, INFO, 0.05)).state == "running"


async def test_a_run_that_nobody_holds_is_lost_in_the_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "GONE_S", 0.1)
    assert (await reach.awaited(home, INFO)).state == "lost"


async def test_a_run_that_is_held_is_not(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "GONE_S", 0.1)
    control = Control()
    async with control.talking(ignore), control.serving(home.run(INFO.run_id)):
        assert (home.run(INFO.run_id) / CONTROL_SOCKET).exists()
        assert (await reach.awaited(home, INFO, 0.5)).state == "running"
