"""Launches of bubblewrap without any daemon: what is refused, and that nothing is left then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec, Stdio
from moat.runtimes.ahead import GateAhead
from moat.runtimes.bubblewrap_launch import launch

pytestmark = pytest.mark.bubblewrap
RUN = "run_000000000000"


@pytest.fixture
def stdio() -> Iterator[Stdio]:
    nothing = os.open(os.devnull, os.O_RDWR)
    yield Stdio(nothing, nothing, nothing)
    os.close(nothing)


def a_spec(workspace: Path) -> SandboxSpec:
    return SandboxSpec(RUN, "calm-otter", ("true",), {}, (Mount(workspace, "/workspace"),), "/workspace", "/home/moat")


async def _nothing(container_id: str) -> None:
    """Tell nobody."""


async def ended(gate: GateAhead) -> bool:
    await gate.child.wait()
    return gate.complaints.closed


async def test_a_door_that_is_not_there_refuses_and_the_gate_is_gone(tmp_path: Path, stdio: Stdio) -> None:
    gate = GateAhead()
    assert await gate.verdict() == ""
    folder = tmp_path / "moat" / "doors" / RUN
    work = tmp_path / "work"
    work.mkdir()

    with pytest.raises(SandboxFailed, match="cannot reach the daemon"):
        await launch(gate, a_spec(work), DoorTicket(RUN, folder, "s3cr3t"), stdio, _nothing)

    assert await ended(gate)


async def test_a_mount_that_must_not_be_refuses_and_the_gate_is_gone(tmp_path: Path, stdio: Stdio) -> None:
    gate = GateAhead()
    assert await gate.verdict() == ""
    folder = tmp_path / "moat" / "doors" / RUN

    with pytest.raises(SandboxFailed, match="overlap"):
        await launch(gate, a_spec(tmp_path), DoorTicket(RUN, folder, "s3cr3t"), stdio, _nothing)

    assert await ended(gate)


async def test_a_gate_that_died_meanwhile_is_told(tmp_path: Path, stdio: Stdio) -> None:
    gate = GateAhead()
    assert await gate.verdict() == ""
    gate.child.kill()
    await gate.child.wait()

    with pytest.raises(SandboxFailed, match="gate"):
        await launch(gate, a_spec(tmp_path), DoorTicket(RUN, tmp_path / "m" / "doors" / RUN, "s3cr3t"), stdio, _nothing)
