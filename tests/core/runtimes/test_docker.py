"""The docker runtime's own few lines: what it says about itself, and what it says without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes.docker import Docker
from support.fake_engine import fake_engine, use_engine_at


def test_it_is_sealed_and_needs_an_image() -> None:
    runtime = Docker()

    assert (runtime.name, runtime.sealed, runtime.needs_image) == ("docker", True, True)


def test_naming_the_runtime_loads_no_engine_library() -> None:
    program = "import sys, moat.runtimes.docker; sys.exit('aiodocker' in sys.modules or 'aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_reaping_without_an_engine_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)

    await Docker().reap("run_0123456789ab")


async def test_reaping_that_the_engine_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"GET containers/json": (500, {"message": "disk on fire"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        with pytest.raises(Exception, match="disk on fire"):
            await Docker().reap("run_0123456789ab")


async def test_readiness_without_an_engine_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_engine_at(tmp_path / "absent.sock", monkeypatch)

    found = await Docker().readiness("debian")

    assert not found.is_ready
    assert "--runtime bubblewrap" in found.hint
