"""Every answer of the engine's, and its silence, becomes an error that says what was tried."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from moat.api.errors import SandboxFailed
from moat.runtimes.docker_engine import (
    Attachment,
    create,
    remove,
    remove_network,
    session,
    told_as,
    uninterrupted,
)
from support.fake_engine import fake_engine, use_engine_at


async def test_a_created_container_is_named_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"POST containers/create": (201, {"Id": "c1"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        assert await create(docker, "moat-run", {"Image": "debian"}) == "c1"

    assert engine.queries["POST containers/create"] == {"name": "moat-run"}
    assert engine.bodies["POST containers/create"] == b'{"Image": "debian"}'


async def test_a_refusal_is_told_in_the_engines_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"POST containers/create": (400, {"message": "invalid mount\nlong story"})}
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        with pytest.raises(SandboxFailed) as caught:
            await create(docker, "moat-run", {})

    assert caught.value.problem == "docker could not create moat-run: invalid mount"


@pytest.mark.parametrize("status", [204, 404], ids=["there", "gone"])
async def test_removing_is_done_when_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers = {"DELETE containers/c": (status, {"message": "no"}), "GET networks/n": (404, {"message": "no"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        await remove(docker, "c")
        await remove_network(docker, "n")

    assert engine.queries["DELETE containers/c"] == {"force": "1", "v": "1"}


@pytest.mark.parametrize("status", [200, 404], ids=["at last", "just now"])
async def test_a_container_that_somebody_else_removes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers = {
        "DELETE containers/c": (409, {"message": "removal is already in progress"}),
        "POST containers/c/wait": (status, {"StatusCode": 0, "message": "gone"}),
    }
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        await remove(docker, "c")

    assert engine.queries["POST containers/c/wait"] == {"condition": "removed"}


async def test_an_engine_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)
    async with session() as docker:
        with pytest.raises(SandboxFailed, match="could not answer: Cannot connect"), told_as(docker, "answer"):
            await docker.version()


@pytest.mark.parametrize("failure", [TimeoutError(), aiohttp.ClientError("torn"), OSError("torn")], ids=str)
async def test_silence_and_torn_connections_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)
    async with session() as docker:
        with pytest.raises(SandboxFailed, match=r"docker (did not|could not) blink"), told_as(docker, "blink"):
            raise failure


async def test_what_makes_something_is_not_interrupted() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    made: list[str] = []

    async def make() -> None:
        began.set()
        await go_on.wait()
        made.append("container")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(uninterrupted(make()))
        await began.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()

    assert (made, task.cancelled()) == (["container"], True)


async def test_what_makes_something_returns_and_raises_as_it_is() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise SandboxFailed("no")

    assert await uninterrupted(asyncio.sleep(0, "made")) == "made"
    with pytest.raises(SandboxFailed):
        await uninterrupted(fail())


async def test_an_attachment_that_is_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine, session() as docker:
        attachment = Attachment(docker, "c1")
        with pytest.raises(SandboxFailed, match="could not attach"):
            await attachment.open()
        await attachment.close()

    query = engine.queries["POST containers/c1/attach"]
    assert {name: query[name] for name in ("stream", "stdin", "stdout", "stderr")} == dict.fromkeys(
        ("stream", "stdin", "stdout", "stderr"), "1"
    )


async def test_the_version_of_the_api_is_told_by_a_ping_and_asked_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"DELETE containers/c": (404, {"message": "no"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine:
        async with session() as docker:
            await docker.greeting()
        async with session() as docker:
            await remove(docker, "c")

    assert engine.calls == ["GET _ping", "DELETE containers/c"]


async def test_roots_are_there_for_an_engine_that_is_not_behind_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("moat.runtimes.engine.trust_roots", lambda: asked.append("roots"))
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    for host, wanted in (("unix:///nowhere.sock", []), ("tcp://127.0.0.1:1", ["roots"])):
        monkeypatch.setenv("DOCKER_HOST", host)
        async with session():
            assert asked == wanted
