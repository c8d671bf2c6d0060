"""Is the engine there, has it the image, and what of a run is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.container import Limits
from moat.api.errors import SandboxFailed
from moat.runtimes.docker_config import HOME_LABEL, RUN_LABEL, labels
from moat.runtimes.docker_engine import session
from moat.runtimes.docker_ready import readiness, reap, unenforced
from support.fake_engine import fake_engine

RUN_ID = "run_0123456789ab"


async def test_an_engine_with_the_image_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {"GET images/debian:x/json": (200, {"Id": "sha256:0"})}):
        found = await readiness("debian:x")

    assert (found.is_ready, found.detail) == (True, "docker 20.10.24")


async def test_a_missing_image_is_not_pulled_but_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        found = await readiness("debian:x")

    assert (found.is_ready, found.detail, found.hint) == (
        False,
        "docker has no image debian:x",
        "run: docker pull debian:x",
    )
    assert not any(call.startswith("POST") for call in engine.calls)


async def test_what_names_no_image_is_told_apart_from_an_engine_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"GET images/Bad/json": (400, {"message": "invalid reference format"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        found = await readiness("Bad")

    assert (found.is_ready, found.detail) == (False, "Bad is no name of an image")


async def test_an_engine_that_may_not_be_asked_hints_at_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, {"GET _ping": (403, {"message": "permission denied"})}):
        found = await readiness("debian:x")

    assert not found.is_ready
    assert "usermod -aG docker" in found.hint


async def test_reaping_removes_what_bears_the_runs_marks_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    marks = labels(RUN_ID, tmp_path / "home")
    answers = {
        "GET containers/json": (
            200,
            [{"Id": "c2", "Names": [f"/moat-{RUN_ID}-gate"]}, {"Id": "c1", "Names": [f"/moat-{RUN_ID}"]}],
        ),
        "GET networks": (200, [{"Id": "n1"}]),
        "GET networks/n1": (200, {"Id": "n1"}),
        "DELETE containers/c1": (204, None),
        "DELETE containers/c2": (404, {"message": "gone"}),
        "DELETE networks/n1": (204, None),
    }
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        await reap(docker, RUN_ID)

    wanted = {"label": [f"{RUN_LABEL}={RUN_ID}", f"{HOME_LABEL}={marks[HOME_LABEL]}"]}
    assert json.loads(engine.queries["GET containers/json"]["filters"]) == wanted
    assert json.loads(engine.queries["GET networks"]["filters"]) == wanted
    assert engine.queries["GET containers/json"]["all"] == "1"
    removed = [call for call in engine.calls if call.startswith("DELETE")]
    assert removed == ["DELETE containers/c1", "DELETE containers/c2", "DELETE networks/n1"]


async def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "GET containers/json": (200, [{"Id": "c1", "Names": []}]),
        "GET networks": (200, []),
        "DELETE containers/c1": (500, {"message": "device busy"}),
    }
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        with pytest.raises(SandboxFailed, match="device busy"):
            await reap(docker, RUN_ID)


async def test_an_engine_says_itself_which_limits_it_would_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"MemoryLimit": True, "CpuCfsQuota": False}
    async with fake_engine(tmp_path, monkeypatch, {"GET info": (200, told)}):
        limits = Limits(memory_bytes=1 << 30, cpus=1, pids=10, ulimits={"nofile": (1, 2)})

        assert await unenforced(limits) == ("cpus", "pids")
        assert await unenforced(Limits(memory_bytes=1 << 30)) == ()
