from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from errno import EMFILE, ENFILE, ENOBUFS

import pytest
from moat.api.errors import RunNotFound
from moat.daemon import doors as module
from moat.daemon.doors import Door, Doors
from moat.daemon.registry import Entry, Registry
from moat.frames import FrameChannel
from moat.paths import Home, socket_address
from moat.runtimes.door import DoorListener, hash_nonce

from core.daemon.gates import a_gate
from core.daemon.making import RUN_ID, a_context, a_worker, an_info

pytestmark = pytest.mark.timeout(60)  # real gates


@asynccontextmanager
async def a_door(home: Home) -> AsyncIterator[tuple[Doors, Door]]:
    registry = Registry()
    registry.publish(Entry(a_context(), an_info(state="starting")))
    async with a_worker(home.root.parent) as worker:
        doors = Doors(home, registry, worker)
        door = doors.make(RUN_ID)
        try:
            yield doors, door
        finally:
            door.close()


async def test_a_sealed_run_is_opened_and_its_gate_s_end_is_seen(home: Home) -> None:
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce) as gate:
        await door.admit({})
        entry = doors.registry.get(RUN_ID)
        assert entry is not None
        assert entry.context.is_open
        assert list(doors.cookies) == [RUN_ID]

        door.open()
        assert await gate.event() == {"event": "open"}

        await gate.leave()
        assert await door.exit_code() is None


async def test_a_door_stands_alone_in_a_private_folder_until_its_gate_has_come(home: Home) -> None:
    async with a_door(home) as (_, door):
        assert [each.name for each in door.folder.iterdir()] == ["door.sock"]
        assert door.folder.stat().st_mode & 0o777 == 0o700
        async with a_gate(RUN_ID, door.folder, door.nonce):
            await door.admit({})
            assert not (door.folder / "door.sock").exists()


async def test_who_does_not_know_the_nonce_is_refused_and_the_gate_still_gets_in(home: Home) -> None:
    async with a_door(home) as (doors, door), asyncio.TaskGroup() as group:
        admitted = group.create_task(door.admit({}))
        async with a_gate(RUN_ID, door.folder, "0" * 64) as stranger:
            event = await stranger.event()
        assert event["event"] == "refused"
        assert "nonce" in event["problem"]
        entry = doors.registry.get(RUN_ID)
        assert entry is not None
        assert not entry.context.is_open

        async with a_gate(RUN_ID, door.folder, door.nonce):
            await admitted


async def test_who_comes_and_says_nothing_opens_nothing(home: Home) -> None:
    async with a_door(home) as (_, door), asyncio.TaskGroup() as group:
        admitted = group.create_task(door.admit({}))
        _, writer = await asyncio.open_unix_connection(socket_address(door.folder / "door.sock"))
        writer.close()

        async with a_gate(RUN_ID, door.folder, door.nonce) as gate:
            await admitted
            door.open()
            assert await gate.event() == {"event": "open"}


async def test_a_run_that_ended_before_its_gate_came_is_not_opened(home: Home) -> None:
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce) as gate:
        doors.registry.remove(RUN_ID)

        with pytest.raises(RunNotFound):
            await door.admit({})

        assert (await gate.event())["event"] == "refused"


async def test_a_closed_door_is_gone_however_often_it_is_closed(home: Home) -> None:
    async with a_door(home) as (doors, door):
        door.close()
        door.close()

        assert doors.cookies == {}
        assert list(home.root.glob("doors/*")) == []


async def test_a_door_survives_a_time_without_descriptors(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.01)
    accept, failures = DoorListener.accept, [EMFILE, ENFILE, ENOBUFS]

    async def scarce(self: DoorListener) -> FrameChannel:
        if failures:
            raise OSError(failures.pop(), "no descriptors are left")
        return await accept(self)

    monkeypatch.setattr(DoorListener, "accept", scarce)
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce) as gate:
        await door.admit({})
        door.open()
        assert await gate.event() == {"event": "open"}
        assert doors.is_open(RUN_ID)
    assert failures == []


async def test_the_namespace_is_remembered_and_the_nonce_is_not(home: Home) -> None:
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce):
        await door.admit({})

        entry = doors.registry.get(RUN_ID)
        assert entry is not None
        assert entry.place.cookie == doors.cookies[RUN_ID] != 0
        assert door.nonce not in repr(entry)
        assert door.nonce_sha256 == hash_nonce(door.nonce)


async def test_a_door_that_is_left_keeps_its_folder_for_the_next_daemon(home: Home) -> None:
    async with a_door(home) as (doors, door):
        door.leave()
        door.leave()

        assert door.folder.is_dir()
        assert list(door.folder.iterdir()) == []
        assert not doors.is_open(RUN_ID)


async def test_a_run_that_waits_for_its_credentials_stays_closed_when_its_gate_has_come(home: Home) -> None:
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce):
        entry = doors.registry.get(RUN_ID)
        assert entry is not None
        doors.registry.replace(replace(entry, context=replace(entry.context, why_closed="the keyring is locked")))

        await door.admit({})

        entry = doors.registry.get(RUN_ID)
        assert entry is not None
        assert not entry.context.is_open


async def test_nobody_connects_into_a_run_before_its_command_may_start(home: Home) -> None:
    async with a_door(home) as (doors, door), a_gate(RUN_ID, door.folder, door.nonce) as gate:
        with pytest.raises(ConnectionError, match="no open door"):
            await doors.connect(RUN_ID, 19080)
        await door.admit({})
        with pytest.raises(ConnectionError, match="no open door"):
            await doors.connect(RUN_ID, 19080)

        door.open()
        assert await gate.event() == {"event": "open"}
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(door.exit_code())
            with await doors.connect(RUN_ID, 19080) as inside:
                assert inside.getpeername() == ("127.0.0.1", 19080)
            with pytest.raises(ConnectionError, match=r"."):
                await doors.connect(RUN_ID, 3999)
            watching.cancel()
        door.close()
        with pytest.raises(ConnectionError, match="no open door"):
            await doors.connect(RUN_ID, 19080)
