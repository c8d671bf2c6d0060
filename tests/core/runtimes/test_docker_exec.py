"""What an engine may answer to an exec. With a real one: tests/integration/test_exec.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import Stdio
from moat.runtimes.docker_engine import Streams
from moat.runtimes.docker_exec import KILLED, DockerExecution, execute
from moat.runtimes.docker_launch import DockerSandbox
from moat.runtimes.engine import Engine
from support.fake_engine import Answer, fake_engine

CREATE, START, FACTS = "POST containers/c1/exec", "POST exec/e1/start", "GET exec/e1/json"
MADE: dict[str, Answer] = {CREATE: (201, {"Id": "e1"})}


async def test_it_asks_for_nothing_beyond_what_the_container_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, MADE) as engine:
        with pytest.raises(SandboxFailed):
            await execute(Engine, "c1", ("sh", "-c", "x"), Stdio(0, 1, 2), None)

    asked = json.loads(engine.bodies[CREATE])
    assert asked["Cmd"] == ["sh", "-c", "x"]
    assert (asked["Privileged"], asked["User"], asked["WorkingDir"], asked["Env"]) == (False, "", "", None)


async def test_a_container_that_does_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Answer] = {CREATE: (409, {"message": "Container c1 is not running"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        with pytest.raises(SandboxFailed, match="could not start a command in a live run: Container c1 is not running"):
            await execute(Engine, "c1", ("true",), Stdio(0, 1, 2), None)


async def test_a_command_whose_container_is_gone_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, MADE):
        docker = Engine.open()
        made = await docker.containers.container("c1").exec(["true"])
        execution = DockerExecution(docker, made, Streams(docker, made.start()), Stdio(0, 1, 2))
        execution.undo.push_async_callback(docker.close)

        await execution.begun()
        assert await execution._exit_code() == KILLED
        await execution.signal(9)
        await execution.close()
        await execution.close()


async def test_a_run_without_a_door_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, MADE) as engine:
        docker = Engine.open()
        sandbox = DockerSandbox(docker, "c1", None, Stdio(0, 1, 2))  # type: ignore[arg-type] # nothing is carried
        with pytest.raises(SandboxFailed, match="this run has no door"):
            await sandbox.execute(("true",), Stdio(0, 1, 2), None)
        await docker.close()

    assert engine.calls == []
