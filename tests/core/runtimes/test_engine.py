"""What differs from one engine to the next, as docker has it: nothing is changed, and nothing more is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import SandboxFailed
from moat.runtimes.docker_ready import readiness, user_of
from moat.runtimes.engine import Engine
from support.fake_engine import fake_engine, use_engine_at

PODMANS = {"Version": "5.4.2", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]}


def test_a_context_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")

    with pytest.raises(SandboxFailed, match="Context metadata file not found"):
        Engine.open()


def test_an_address_by_ssh_says_what_that_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@somewhere")

    with pytest.raises(SandboxFailed, match="docker cannot be reached: asyncssh is required"):
        Engine.open()


async def test_dockers_containers_are_configured_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)
    docker = Engine.open()
    config: Any = {"Image": "debian", "HostConfig": {"SecurityOpt": ["seccomp={}"]}}

    assert docker.container(config) is config
    await docker.close()


async def test_dockers_gateway_is_there_without_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        docker = Engine.open()
        async with docker.with_gateway("n", {}):
            pass
        await docker.close()

    assert engine.calls == []


@pytest.mark.parametrize(("option", "user"), [("name=rootless", "0:0"), ("name=seccomp", "1001:1002")])
async def test_the_user_inside_is_the_invoker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, user: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1001)
    monkeypatch.setattr("os.getegid", lambda: 1002)
    async with fake_engine(tmp_path, monkeypatch, {"GET info": (200, {"SecurityOptions": [option]})}) as engine:
        docker = Engine.open()
        assert await user_of(docker) == user
        await docker.close()

    assert engine.calls == ["GET version", "GET info"]


async def test_podman_in_dockers_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {"GET version": (200, PODMANS)}):
        found = await readiness("debian")

    assert (found.is_ready, found.hint) == (False, "use --runtime podman")
    assert "podman" in found.detail
