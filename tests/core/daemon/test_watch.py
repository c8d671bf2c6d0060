from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moat.api.errors import RunNotFound
from moat.daemon import watch as module
from moat.daemon.process import boot_id
from moat.daemon.state import load
from moat.paths import Home

from core.daemon.gates import a_gate
from core.daemon.house import a_house, a_request, registered
from core.daemon.making import OTHER_ID, RUN_ID, ask, until

pytestmark = pytest.mark.timeout(60)  # real gates and workers


async def test_a_sealed_run_lives_as_long_as_its_gate(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.05)
    async with a_house(home) as house:
        made = await house.runs.register(a_request())
        assert made.door is not None
        async with a_gate(RUN_ID, Path(made.door.folder), made.door.nonce) as gate:
            assert await gate.event() == {"event": "open"}
            assert house.state() == "running"

            gate.process.kill()
            await until(lambda: ("reaped", "bubblewrap", RUN_ID) in house.orchard.seen)

        assert house.state() == "lost"
        assert house.runs.list() == []
        assert ("stopped", RUN_ID, -1) in house.orchard.seen
        await until(lambda: not Path(made.door.folder).exists() if made.door else None)
        assert (await house.runs.end(made.auth_token, 9)).state == "stopped"


async def test_a_command_line_that_ends_its_run_cleans_up_itself(home: Home) -> None:
    async with a_house(home) as house:
        made = await house.runs.register(a_request())
        assert made.door is not None
        async with a_gate(RUN_ID, Path(made.door.folder), made.door.nonce) as gate:
            await gate.event()
            info = await house.runs.end(made.auth_token, 0)

        assert (info.state, info.exit_code) == ("stopped", 0)
        await until(lambda: list(home.root.glob("doors/*")) == [])
        assert not [each for each in house.orchard.seen if each[0] == "reaped"]


@pytest.mark.parametrize("needs_door", [True, False], ids=["sealed", "by token"])
async def test_a_run_that_nobody_comes_for_is_dropped(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, needs_door: bool
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    async with a_house(home) as house:
        made = await house.runs.register(a_request(needs_door=needs_door))
        await until(lambda: house.runs.list() == [])

        assert house.state() == "lost"
        with pytest.raises(RunNotFound):
            house.runs.tell_container(made.auth_token, "c")
        assert (await ask(house.port))["runs"] == {}


@pytest.mark.parametrize("needs_door", [True, False], ids=["sealed", "by token"])
async def test_a_run_whose_launcher_ends_is_not_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, needs_door: bool
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    launcher = await asyncio.create_subprocess_exec("sleep", "60")
    async with a_house(home) as house:
        await house.runs.register(a_request(needs_door=needs_door, launcher_pid=launcher.pid))
        assert house.state() == "starting"

        launcher.kill()
        await launcher.wait()
        await until(lambda: ("reaped", "bubblewrap", RUN_ID) in house.orchard.seen)

        assert house.state() == "lost"


async def test_a_run_without_a_door_ends_with_its_process(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    process = await asyncio.create_subprocess_exec("sleep", "60")
    async with a_house(home) as house:
        made = await registered(house)
        house.runs.tell_container(made.auth_token, str(process.pid))
        process.kill()
        await process.wait()
        await until(lambda: house.runs.list() == [])

        assert house.state() == "lost"


async def test_when_the_daemon_ends_every_run_is_lost(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house)
        await house.runs.register(a_request(OTHER_ID))

    assert {house.state(RUN_ID), house.state(OTHER_ID)} == {"lost"}
    assert list(home.root.glob("doors/*")) == []


async def test_a_reaper_that_fails_ends_neither_the_daemon_nor_other_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    monkeypatch.setattr(module, "LINGER_S", 0.0)

    async def reap(runtime: str, run_id: str) -> None:
        raise OSError("no engine")

    async with a_house(home) as house:
        monkeypatch.setattr(house.orchard, "reap", reap)
        await house.runs.register(a_request())
        await until(lambda: "a run's watch failed" in caplog.text)

        assert house.state() == "lost"
        assert (await registered(house, run_id=OTHER_ID)).run_id == OTHER_ID


async def test_a_record_that_is_gone_when_a_watch_fails_ends_neither_the_daemon_nor_other_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    monkeypatch.setattr(module, "LINGER_S", 0.0)

    async def reap(runtime: str, run_id: str) -> None:
        (home.run(run_id) / "run.json").unlink()
        raise OSError("no engine")

    async with a_house(home) as house:
        monkeypatch.setattr(house.orchard, "reap", reap)
        await house.runs.register(a_request())
        await until(lambda: "a run's watch failed" in caplog.text)
        await house.parts.worker.barrier()

        assert (await registered(house, run_id=OTHER_ID)).run_id == OTHER_ID


async def test_a_full_disk_keeps_no_run_from_ending(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        record = home.run(RUN_ID) / "run.json"
        record.unlink()
        record.mkdir()  # nothing can be written there any more

        assert (await house.runs.end(made.auth_token, 0)).state == "stopped"
        assert (await ask(house.port))["runs"] == {}

    assert "could not be written" in caplog.text


async def test_runs_that_are_let_go_are_not_ended_and_their_doors_stay(home: Home) -> None:
    async with a_house(home) as house:
        await registered(house)
        made = await house.runs.register(a_request(OTHER_ID))
        assert made.door is not None

        await house.runs.leave()

        assert (house.state(), house.state(OTHER_ID)) == ("starting", "starting")
        assert home.door(OTHER_ID).is_dir()
        assert len(house.runs.list()) == 2


async def test_the_daemon_waits_a_little_for_gates_that_are_on_their_way(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALM_S", 600.0)
    async with a_house(home) as house:
        doorless = await registered(house)
        await house.runs.calm()  # a run without a door has nobody to wait for
        await house.runs.end(doorless.auth_token, 0)
        made = await house.runs.register(a_request(OTHER_ID))
        assert made.door is not None
        async with asyncio.TaskGroup() as group:
            calm = group.create_task(house.runs.calm())
            await asyncio.sleep(0)
            assert not calm.done()
            async with a_gate(OTHER_ID, home.door(OTHER_ID), made.door.nonce):
                await calm
    monkeypatch.setattr(module, "CALM_S", 0.01)
    async with a_house(home) as house:
        await house.runs.register(a_request("run_aaaaaaaaaaaa"))
        await house.runs.calm()  # it gives up


async def test_a_command_starts_only_when_its_namespace_is_written_down(home: Home) -> None:
    async with a_house(home) as house:
        made = await house.runs.register(a_request())
        assert made.door is not None
        async with a_gate(RUN_ID, home.door(RUN_ID), made.door.nonce) as gate:
            assert (await gate.event())["event"] == "open"

            (entry,) = load(home, boot_id())
            assert entry.place.cookie != 0


async def test_a_folder_that_others_may_write_keeps_no_run_from_ending(home: Home) -> None:
    async with a_house(home) as house:
        made = await registered(house)
        home.run(RUN_ID).chmod(0o770)

        assert (await house.runs.end(made.auth_token, 0)).state == "stopped"
        home.run(RUN_ID).chmod(0o700)
