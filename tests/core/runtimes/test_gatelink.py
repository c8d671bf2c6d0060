from __future__ import annotations

import json
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import SandboxFailed
from moat.runtimes import gatelink
from moat.runtimes.gatelink import DoorUnreached, GateConfig, GateLink


class Gate:
    """A Wire whose gate says what it was given, in order, then ends."""

    def __init__(self, *events: dict[str, Any] | bytes) -> None:
        self.said = deque(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in events)
        self.heard: list[dict[str, Any]] = []
        self.is_closed = False

    async def write(self, data: bytes) -> None:
        if self.is_closed:
            raise BrokenPipeError
        self.heard.append(json.loads(data))

    async def readline(self) -> bytes:
        return self.said.popleft() if self.said else b""

    async def close(self) -> None:
        self.is_closed = True


CONFIG = GateConfig("run_0", "nonce-s3cr3t", "/door", "container")


async def test_configuration_goes_first_and_open_is_waited_for() -> None:
    gate = Gate({"event": "open"}, {"event": "started", "pid": 7}, {"event": "exited", "code": 3})
    link = GateLink(gate)

    await link.open(CONFIG)

    assert await link.started() == 7
    assert await link.wait() == 3
    assert gate.heard[0]["nonce"] == "nonce-s3cr3t"
    assert gate.heard[0]["argv"] is None


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"event": "refused", "problem": "a route"}, "refused: a route"),
        ({"event": "lost", "problem": "gone"}, "lost its daemon"),
        (b"Traceback\n", "not its protocol"),
        (b"[]\n", "not its protocol"),
        (b"", "ended unexpectedly"),
    ],
)
async def test_anything_but_open_is_an_error_that_says_why(event: dict[str, Any] | bytes, problem: str) -> None:
    with pytest.raises(SandboxFailed, match=problem):
        await GateLink(Gate(event)).open(CONFIG)


async def test_unreached_door_is_an_error_of_its_own() -> None:
    with pytest.raises(DoorUnreached):
        await GateLink(Gate({"event": "unreached", "problem": "no such file"})).open(CONFIG)


async def test_lost_gate_ends_the_wait_with_an_error() -> None:
    link = GateLink(Gate({"event": "open"}))
    await link.open(CONFIG)

    with pytest.raises(SandboxFailed, match="the command was stopped"):
        await link.wait()


async def test_controls_to_a_gate_that_is_gone_are_dropped() -> None:
    gate = Gate({"event": "open"})
    link = GateLink(gate)
    await link.open(CONFIG)
    await link.signal(15)
    await link.resize(24, 80)
    await link.close()
    await link.signal(9)

    assert gate.heard[1:] == [{"signal": 15}, {"resize": [24, 80]}]


def test_nonce_is_in_no_repr() -> None:
    assert "s3cr3t" not in repr(CONFIG)


def test_a_gate_here_is_compiled_once_and_loads_the_standard_library_before_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "gate.py"
    source.write_bytes(gatelink.GATE_SOURCE.read_bytes())
    (tmp_path / "json.py").write_text("raise ImportError('not this one')")
    monkeypatch.setattr(gatelink, "GATE_SOURCE", source)

    then = "print(gate.__file__, sys.argv[1:], sys.flags.isolated, sys.flags.no_site)"
    done = subprocess.run([*gatelink.gate_program(then), "7"], capture_output=True, text=True, check=True)

    assert done.stdout == f"{source} ['7'] 1 1\n"
    assert [each.name.partition(".")[0] for each in (tmp_path / "__pycache__").iterdir()] == ["gate"]
