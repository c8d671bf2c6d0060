from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from moat.runtimes.child import Child, found
from support.installation import eventually


async def test_it_is_waited_for_without_a_thread_and_more_than_once() -> None:
    with tempfile.TemporaryFile() as complaints:
        child = Child(("sh", "-c", "echo no >&2; sleep 0.2"), standard=subprocess.DEVNULL, complaints=complaints)

        await child.wait()
        await child.wait()

        complaints.seek(0)
        assert complaints.read() == b"no\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_it_leads_a_session_of_its_own_and_knows_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cr3t")
    with tempfile.TemporaryFile() as complaints:
        child = Child(("sh", "-c", "env >&2; sleep 60"), standard=subprocess.DEVNULL, complaints=complaints)
        try:
            assert os.getsid(child.pid) == child.pid
            eventually("it speaks", lambda: b"PATH=" in os.pread(complaints.fileno(), 4096, 0), 30)
            assert b"s3cr3t" not in os.pread(complaints.fileno(), 4096, 0)
        finally:
            child.kill()
            child.reap()


async def test_a_wait_that_is_given_up_can_be_begun_again() -> None:
    with tempfile.TemporaryFile() as complaints:
        child = Child(("sleep", "60"), standard=subprocess.DEVNULL, complaints=complaints)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await child.wait()

        child.kill()
        async with asyncio.timeout(30):
            await child.wait()


async def test_what_is_given_is_inherited_and_nothing_else() -> None:
    given, kept = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(kept, True)
    script = f"test -e /proc/self/fd/{given} && ! test -e /proc/self/fd/{kept} && echo yes >&2"
    with tempfile.TemporaryFile() as complaints:
        child = Child(("sh", "-c", script), standard=subprocess.DEVNULL, complaints=complaints, given=[given])
        await child.wait()
        complaints.seek(0)
        said = complaints.read()
    os.close(given)
    os.close(kept)

    assert said == b"yes\n"


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").touch(mode=mode)
    (tmp_path / "zeroth" / "tool").mkdir(parents=True)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / each) for each in ("zeroth", "first", "second", "third")))

    assert found("tool") == shutil.which("tool") == str(tmp_path / "second" / "tool")
    assert found("no-such-tool") is None
