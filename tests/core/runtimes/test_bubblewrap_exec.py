from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import SandboxSpec, Stdio
from moat.runtimes.bubblewrap_exec import execute

SPEC = SandboxSpec("run_0123456789ab", "calm-otter", ("true",), {}, (), "/", "/home/moat")


@pytest.fixture
def nothing() -> Iterator[Stdio]:
    number = os.open(os.devnull, os.O_RDWR)
    yield Stdio(number, number, number)
    os.close(number)


def joined(pid: int, nothing: Stdio, *argv: str) -> None:
    asyncio.run(execute(pid, SPEC, argv, nothing, has_terminal=False))


def test_a_run_that_has_ended_is_told(nothing: Stdio) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    with pytest.raises(SandboxFailed, match="does not run"):
        joined(ended.pid, nothing, "true")


def test_what_looks_like_a_sandbox_and_is_none_is_not_joined(nothing: Stdio, tmp_path: Path) -> None:
    """bwrap's tree of processes, without any namespace."""
    mark = tmp_path / "mark"
    with subprocess.Popen(["sh", "-c", "sh -c 'sleep 600; true'; true"], start_new_session=True) as process:
        try:
            with pytest.raises(SandboxFailed, match="it is no sandbox"):
                joined(process.pid, nothing, "touch", str(mark))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert not mark.exists()
