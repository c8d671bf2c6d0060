"""The podman runtime is docker's, on another engine. Real runs: tests/contract/test_runtimes.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes.docker import Docker
from moat.runtimes.podman import Podman
from moat.runtimes.podman_engine import PodmanEngine
from support.fake_engine import fake_engine


def test_it_promises_what_docker_promises() -> None:
    runtime = Podman()

    assert (runtime.name, runtime.sealed, runtime.needs_image) == ("podman", True, True)
    assert runtime.engine() is PodmanEngine
    assert isinstance(runtime, Docker)


def test_listing_it_loads_no_client_library() -> None:
    program = "import sys, moat.runtimes.podman; sys.exit('aiodocker' in sys.modules or 'aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_what_a_lost_run_left_is_looked_for_at_podmans_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    async with fake_engine(
        tmp_path, monkeypatch, {"GET containers/json": (200, []), "GET networks": (200, [])}
    ) as engine:
        monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/engine.sock")
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
        await Podman().reap("run_0123456789ab")
        assert await Podman().pulse("run_0123456789ab") is False

    wanted = json.loads(engine.queries["GET containers/json"]["filters"])["label"]
    assert "moat.run=run_0123456789ab" in wanted
    assert "GET version" not in engine.calls
