from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.api.runs import RunInfo
from moat.paths import Home, private_folder
from moat.runs.copies import CopyFailed, WorkingCopy, as_branch, overview, recover, take_over
from moat.runs.results import files_in, result_of

RUN = "run_0123456789ab"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(private_folder(tmp_path / "moat"))
    private_folder(made.run(RUN))
    return made


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a").write_text("one\n")
    (folder / "tool").write_bytes(bytes(range(256)))
    (folder / ".gitignore").write_text("ignored\n")
    (folder / "ignored").write_text("also there\n")
    (folder / "gone").touch()
    return folder


def git(folder: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], env=env, check=True, capture_output=True, text=True)
    return done.stdout


async def changed(home: Home, work: Path) -> bytes:
    """Return the patch of a run that changes a text, a binary, a mode, adds and removes a file."""
    copy = WorkingCopy(home, RUN, work)
    await copy.make()
    there = home.copies / RUN
    assert (there / "ignored").read_text() == "also there\n"
    (there / "a").write_text("two\n")
    (there / "tool").write_bytes(bytes(range(255, -1, -1)))
    (there / "tool").chmod(0o755)
    (there / "new").mkdir()
    (there / "new/file").write_text("new\n")
    (there / "gone").unlink()
    (there / "ignored").write_text("not kept\n")
    copy.finish()
    patch = result_of(home, RUN)
    assert patch is not None
    return patch


async def test_the_workspace_stays_as_it_is_until_the_changes_are_taken_over(home: Home, work: Path) -> None:
    patch = await changed(home, work)

    assert (work / "a").read_text() == "one\n"
    assert list(home.copies.iterdir()) == []
    assert files_in(patch) == 4
    assert "4 files changed" in overview(patch)

    take_over(patch, work)

    assert (work / "a").read_text() == "two\n"
    assert (work / "tool").read_bytes() == bytes(range(255, -1, -1))
    assert (work / "tool").stat().st_mode & 0o111
    assert (work / "new/file").read_text() == "new\n"
    assert not (work / "gone").exists()
    assert (work / "ignored").read_text() == "also there\n"


async def test_changes_that_do_not_fit_any_more_change_nothing(home: Home, work: Path) -> None:
    patch = await changed(home, work)
    (work / "a").write_text("three\n")

    with pytest.raises(CopyFailed, match="do not fit the workspace as it is now: error: "):
        take_over(patch, work)

    assert not (work / "new").exists()


async def test_changes_become_a_branch_and_files_and_index_stay(home: Home, work: Path) -> None:
    git(work, "init", "-q", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "-qm", "first")
    patch = await changed(home, work)
    git(work, "config", "user.name", "a")
    git(work, "config", "user.email", "a@example.com")

    commit = as_branch(patch, work, "agent/topic", "Changes")

    assert git(work, "rev-parse", "agent/topic").strip() == commit
    assert git(work, "show", "agent/topic:a") == "two\n"
    assert git(work, "log", "--format=%s", "agent/topic").split() == ["Changes", "first"]
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    with pytest.raises(UsageError, match="the branch agent/topic is there already"):
        as_branch(patch, work, "agent/topic", "Changes")
    with pytest.raises(UsageError, match=r"'no\.\.name' cannot be the name of a branch"):
        as_branch(patch, work, "no..name", "Changes")
    (work / "a").write_text("else\n")
    git(work, "commit", "-qam", "meanwhile")
    with pytest.raises(CopyFailed, match="do not fit the last commit, which is not what the run had: git apply failed"):
        as_branch(patch, work, "other", "Changes")
    assert [path.name for path in (work / ".git").iterdir() if "moat" in path.name] == []


async def test_a_branch_wants_a_repository_with_the_workspace_at_its_top(home: Home, work: Path) -> None:
    patch = await changed(home, work)
    with pytest.raises(UsageError, match="is no git repository"):
        as_branch(patch, work, "b", "x")

    git(work.parent, "init", "-q")
    with pytest.raises(UsageError, match="not the top"):
        as_branch(patch, work, "b", "x")


async def test_a_branch_wants_a_commit_to_stand_on(home: Home, work: Path) -> None:
    patch = await changed(home, work)
    git(work, "init", "-q")

    with pytest.raises(UsageError, match="has no commit yet") as refused:
        as_branch(patch, work, "b", "x")
    assert refused.value.hint == "run: git commit, or take the files over, without --branch"


async def test_taking_over_below_the_top_of_a_repository_changes_the_workspace(home: Home, work: Path) -> None:
    git(work.parent, "init", "-q")
    patch = await changed(home, work)

    take_over(patch, work)

    assert (work / "a").read_text() == "two\n"


async def test_a_run_that_changes_nothing_has_an_empty_result(home: Home, work: Path) -> None:
    copy = WorkingCopy(home, RUN, work)
    await copy.make()
    copy.finish()

    assert result_of(home, RUN) == b""


async def test_a_copy_that_cannot_be_made_leaves_nothing(home: Home, work: Path) -> None:
    copy = WorkingCopy(home, RUN, work / "gone")
    with pytest.raises(CopyFailed, match="could not be copied: "):
        await copy.make()
    copy.discard()

    assert list(home.copies.iterdir()) == []


async def test_work_that_cannot_be_kept_stays_where_it_is(home: Home, work: Path) -> None:
    copy = WorkingCopy(home, RUN, work)
    await copy.make()
    (home.copies / RUN / "a").write_text("precious\n")
    (home.run(RUN) / "result.patch").mkdir()

    with pytest.raises(CopyFailed, match="it is still in"):
        copy.finish()
    copy.discard()

    assert (home.copies / RUN / "a").read_text() == "precious\n"


async def test_work_of_a_run_whose_launcher_was_killed_is_found_later(home: Home, work: Path) -> None:
    await WorkingCopy(home, RUN, work).make()
    (home.copies / RUN / "a").write_text("precious\n")
    info = RunInfo(RUN, "x", "fake", "permissive", (), str(work), ("true",), "2026-01-01", "lost")

    recover(home, info)

    assert b"+precious" in (result_of(home, RUN) or b"")
    recover(home, info)  # nothing more to find
    assert list(home.copies.iterdir()) == []


async def test_ctrl_c_while_copying_stops_the_copying(
    home: Home, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "cp").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    (slow / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    copy = WorkingCopy(home, RUN, work)
    async with asyncio.TaskGroup() as group:
        making = group.create_task(copy.make())
        async with asyncio.timeout(30):
            while not _has_text(tmp_path / "pid"):  # noqa: ASYNC110 # a program writes it
                await asyncio.sleep(0.01)
        making.cancel()
    copy.discard()

    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()  # noqa: ASYNC240 # a quick look
    assert list(home.copies.iterdir()) == []


def _has_text(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")
