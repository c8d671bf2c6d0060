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


@pytest.mark.parametrize(
    ("answer", "pulse"),
    [
        pytest.param((200, [{"Id": "c1"}]), True, id="a container runs"),
        pytest.param((200, []), False, id="none runs"),
        pytest.param((500, {"message": "on fire"}), None, id="the engine does not say"),
    ],
)
async def test_a_pulse_is_what_the_engine_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, object], pulse: bool | None
) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    async with fake_engine(tmp_path, monkeypatch, {"GET containers/json": answer}):
        assert await Docker().pulse("run_0123456789ab") is pulse


async def test_without_an_engine_there_is_no_pulse_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")

    assert await Docker().pulse("run_0123456789ab") is None


def test_services_are_held_where_a_gate_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Docker().holds_services()
    monkeypatch.setenv("MOAT_DOCKER_DOOR", "none")
    assert not Docker().holds_services()
