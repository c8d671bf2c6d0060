"""Gates ahead of their run, as launchers have them: real processes in namespaces of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moat.runtimes import ahead, gatelink
from moat.runtimes.ahead import GateAhead
from support.installation import eventually

pytestmark = pytest.mark.bubblewrap


async def test_it_is_in_a_namespace_of_its_own_and_says_that_the_trial_went_well() -> None:
    gate = GateAhead(("true",))
    try:
        assert await gate.verdict() == ""
        assert await gate.verdict() == ""
        assert _network(str(gate.child.pid)) != _network("self")
    finally:
        gate.close()

    assert _command(str(gate.child.pid)) == b""


async def test_a_trial_that_goes_wrong_is_told() -> None:
    gate = GateAhead(("sh", "-c", "echo bwrap: no >&2; exit 1"))
    try:
        assert await gate.verdict() == "bwrap: no"
    finally:
        gate.close()


async def test_a_gate_that_does_not_start_is_told_with_what_it_complained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gate.py").write_text("raise ImportError('broken')\n")
    monkeypatch.setattr(gatelink, "GATE_SOURCE", tmp_path / "gate.py")
    gate = GateAhead()
    try:
        assert await gate.verdict() == "ImportError: broken"
    finally:
        gate.close()


def test_a_launcher_that_dies_takes_it_along() -> None:
    script = (
        "import os\n"
        "from moat.runtimes.ahead import GateAhead\n"
        "print(GateAhead(('true',)).child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    eventually("it is gone", lambda: b"gate_ahead" not in _command(done.stdout.strip()), 30)


def _network(pid: str) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_descriptors_that_are_given_are_out_of_the_way() -> None:
    number = ahead.kept_high(0)
    os.close(number)

    assert number >= ahead.FIRST_NUMBER


def test_complaints_have_room_for_so_much_only() -> None:
    with ahead.bounded_file() as file:
        file.write(b"first\nlast\n")
        assert ahead.complaint(file) == "last"
        file.seek(0, os.SEEK_END)
        with pytest.raises(OSError, match="not permitted"):
            file.write(b"more")
