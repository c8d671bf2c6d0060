from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.daemon.reaper import RuntimeReaper, remove_files
from moat.paths import Home, private_folder


class Shed(Runtime):
    name = "shed"
    summary = "for tests"

    def __init__(self) -> None:
        self.reaped: list[str] = []

    async def readiness(self, image: str) -> Readiness:
        raise NotImplementedError

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        raise NotImplementedError

    async def reap(self, run_id: str) -> None:
        self.reaped.append(run_id)


class Sheds:
    def __init__(self) -> None:
        self.shed = Shed()

    def runtimes(self) -> list[Runtime]:
        return [self.shed]


async def test_the_run_s_own_runtime_reaps() -> None:
    sheds = Sheds()

    await RuntimeReaper(sheds).reap("shed", "run_1")

    assert sheds.shed.reaped == ["run_1"]


async def test_an_unknown_runtime_is_logged_and_no_runtime_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sheds = Sheds()
    await RuntimeReaper(sheds).reap("", "run_1")
    assert caplog.records == []

    await RuntimeReaper(sheds).reap("barn", "run_1")

    assert "not installed" in caplog.text
    assert sheds.shed.reaped == []


async def test_the_run_s_own_runtime_is_asked_whether_it_lives_and_another_tool_s_run_needs_none() -> None:
    reaper = RuntimeReaper(Sheds())

    assert await reaper.pulse("shed", "run_1") is True
    assert await reaper.pulse("barn", "run_1") is None
    assert await reaper.pulse("", "run_1") is True


def test_what_a_killed_launcher_left_is_removed_and_the_record_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for run_id in ("run_000000000001", "run_000000000002"):
        (private_folder(home.inside(run_id)) / "ca.pem").touch()
        (private_folder(home.run(run_id)) / "run.json").touch()
        home.control(run_id).touch()

    remove_files(home, "run_000000000001")
    remove_files(home, "run_000000000001")

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    other = {"inside/run_000000000002/ca.pem", "runs/run_000000000002/run.json", "runs/run_000000000002/control.sock"}
    assert left == {"runs/run_000000000001/run.json", *other}
