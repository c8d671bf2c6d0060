"""What differs from one engine to the next, as docker has it: nothing is changed, and nothing more is asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import SandboxFailed
from moat.runtimes import engine as module
from moat.runtimes.docker_engine import session
from moat.runtimes.docker_ready import readiness, user_of
from moat.runtimes.engine import Engine
from support.fake_engine import fake_engine, use_engine_at


def test_a_context_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")

    with pytest.raises(SandboxFailed, match="Context metadata file not found"):
        Engine.open()


def test_an_address_by_ssh_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@somewhere")

    with pytest.raises(SandboxFailed, match=r"^DOCKER_HOST names a docker engine by ssh, which cannot hold") as refused:
        Engine.open()

    assert refused.value.hint == "run: unset DOCKER_HOST, or use --runtime bubblewrap"
    assert Engine.way_in(refused.value) == refused.value.hint


async def test_an_engine_that_is_not_where_docker_host_says_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)
    found = await readiness("debian")

    assert (found.is_ready, found.hint.startswith("run: unset DOCKER_HOST, or install")) == (False, True)
    assert str(tmp_path) in found.detail


def test_a_context_by_ssh_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_context(tmp_path, monkeypatch, "ssh://me@somewhere")

    with pytest.raises(SandboxFailed, match="the docker context names a docker engine by ssh") as refused:
        Engine.open()

    assert refused.value.hint.startswith("run: docker context use default")


async def test_docker_host_goes_before_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_context(tmp_path, monkeypatch, f"unix://{tmp_path}/of-the-context.sock")
    async with session() as docker:
        assert docker._place == f"{tmp_path}/of-the-context.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/named.sock")
    async with session() as docker:
        assert docker._place == f"{tmp_path}/named.sock"


def a_context(home: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Make one as `docker context create` does, and use it."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    folder = home / ".docker/contexts/meta" / hashlib.sha256(b"mine").hexdigest()
    folder.mkdir(parents=True)
    told = {"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": address, "SkipTLSVerify": False}}}
    (folder / "meta.json").write_text(json.dumps(told))


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
    monkeypatch.setattr(module, "_owner", lambda _: 1001)
    async with fake_engine(tmp_path, monkeypatch, {"GET info": (200, {"SecurityOptions": [option]})}) as engine:
        docker = Engine.open()
        assert await user_of(docker) == user
        await docker.close()

    assert engine.calls == ["GET version", "GET info"]


async def test_an_engine_whose_socket_is_roots_is_not_asked_whether_it_is_rootless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_owner", lambda _: 0)
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        docker = Engine.open()
        assert await docker.options() == ()
        await docker.close()

    assert engine.calls == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"[FATAL tini (7)] exec nope failed: No such file or directory\n", (127, "No such file or directory")),
        (b"[FATAL tini (17)] exec a b failed: Exec format error\r\n", (126, "Exec format error")),
        (b"said [FATAL tini (7)] exec nope failed: No such file or directory\n", None),
        (b"", None),
    ],
)
async def test_dockers_init_says_what_it_could_not_start(said: bytes, meant: tuple[int, str] | None) -> None:
    async with session() as docker:
        assert docker.absence(said) == meant


async def test_podman_in_dockers_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        engine.server = "Libpod/5.4.2 (linux)"
        found = await readiness("debian")

    assert (found.is_ready, found.hint) == (False, "use --runtime podman")
    assert "podman" in found.detail
