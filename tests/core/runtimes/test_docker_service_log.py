from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from moat.runtimes.docker_engine import session
from moat.runtimes.docker_service_log import Frames, ServiceLog
from support.fake_engine import use_engine_at

OUT, ERR = bytes([1, 0, 0, 0, 0, 0, 0, 5]) + b"ready", bytes([2, 0, 0, 0, 0, 0, 0, 3]) + b"no\n"


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_frames_are_taken_apart_however_they_are_cut(size: int) -> None:
    frames, data = Frames(), OUT + ERR + OUT
    pieces = [data[at : at + size] for at in range(0, len(data), size)]

    found = [frame for piece in pieces for frame in frames.of(piece)]

    assert found == [("stdout", b"ready"), ("stderr", b"no\n"), ("stdout", b"ready")]


class Container:
    """A container that prints, and prints a last word when it is killed."""

    def __init__(self) -> None:
        self.killed = asyncio.Event()
        self.begun = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/kill"):
            self.killed.set()
            return web.Response(status=204)
        if request.path.endswith("/version"):
            return web.json_response({"Version": "20.10.24", "ApiVersion": "1.41"})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(OUT)
        self.begun.set()
        await self.killed.wait()
        await response.write(ERR)
        return response


@contextlib.asynccontextmanager
async def serving(container: Container, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", container.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine.sock")).start()
    use_engine_at(folder / "engine.sock", monkeypatch)
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("is_carried", [True, False], ids=["carried before", "not carried before"])
async def test_all_that_is_printed_is_carried_also_what_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_carried: bool
) -> None:
    container, taken = Container(), asyncio.Queue[tuple[str, bytes]]()
    async with serving(container, tmp_path, monkeypatch), session() as docker:
        log = ServiceLog(docker, "c1", lambda stream, data: taken.put_nowait((stream, data)))
        if is_carried:
            async with asyncio.TaskGroup() as group, asyncio.timeout(30):
                carrying = group.create_task(log.carry())
                assert await taken.get() == ("stdout", b"ready")
                carrying.cancel()
        await log.finish()

    rest = [taken.get_nowait() for _ in range(taken.qsize())]
    assert rest == [("stdout", b"ready"), ("stderr", b"no\n")][is_carried:]


async def test_a_container_that_is_gone_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine_at(tmp_path / "nobody.sock", monkeypatch)
    async with session() as docker:
        log = ServiceLog(docker, "c1", lambda *_: None)

        await log.carry()
        await log.finish()
