"""What docker is told so that a container's kernel is gVisor's, and what it must know for that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.runtimes.docker_engine import create, session
from moat.runtimes.docker_ready import readiness
from moat.runtimes.gvisor_engine import GvisorEngine
from support.fake_engine import fake_engine

KNOWN = {"runc": {"path": "runc"}, "runsc": {"path": "/usr/bin/runsc"}}


async def test_a_container_is_created_on_runsc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"POST containers/create": (201, {"Id": "c1"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session(GvisorEngine) as docker:
        await create(docker, "moat-run", {"Image": "debian", "HostConfig": {"CapDrop": ["ALL"]}})

    asked = json.loads(engine.bodies["POST containers/create"])
    assert asked == {"Image": "debian", "HostConfig": {"CapDrop": ["ALL"], "Runtime": "runsc"}}


async def test_an_engine_that_knows_runsc_is_ready_and_tells_of_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"GET info": (200, {"Runtimes": KNOWN}), "GET images/debian/json": (200, {"Id": "sha256:0"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        found = await readiness("debian", GvisorEngine)

    assert found.is_ready
    assert found.detail == "docker 20.10.24 with runsc; no door: an internal network and a proxy token instead"


async def test_one_that_does_not_says_how_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {"GET info": (200, {"Runtimes": {"runc": {}}})}):
        found = await readiness("debian", GvisorEngine)

    assert (found.is_ready, found.detail) == (False, "docker knows no runtime runsc")
    assert "runsc install" in found.hint
