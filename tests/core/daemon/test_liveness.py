from __future__ import annotations

import asyncio
import os

import pytest
from moat.daemon.liveness import process_end
from moat.daemon.process import start_time


async def test_the_end_of_a_process_is_waited_for() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(process_end(str(process.pid)))
        await asyncio.sleep(0)
        assert not waiting.done()

        process.kill()
    await process.wait()


async def test_a_process_that_is_gone_has_ended() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()

    await process_end(str(process.pid))


@pytest.mark.parametrize("text", ["", "a1b2c3d4", "0x10", "-1", "9" * 30, "\u0661"])
async def test_what_is_no_process_id_never_ends(text: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await process_end(text)


async def test_another_process_with_the_same_id_is_not_the_one() -> None:
    own = start_time(os.getpid())
    assert own is not None

    await process_end(str(os.getpid()), own + 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await process_end(str(os.getpid()), own)
