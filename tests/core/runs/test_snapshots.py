from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moat.api.errors import UsageError
from moat.paths import Home, private_folder
from moat.runs.snapshots import SnapshotFailed, Snapshots


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(private_folder(tmp_path / "moat"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return every file and link below a folder."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def test_files_come_back_as_they_were_and_new_ones_go(home: Home, work: Path) -> None:
    (work / "a").write_bytes(b"one\r\ntwo\n")
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "deep/er").mkdir(parents=True)
    (work / "deep/er/b").write_bytes(bytes(range(256)))
    (work / "link").symlink_to("a")
    kept = Snapshots(home, work)
    before = contents(work)
    taken = kept.create("a message")

    (work / "a").write_text("changed")
    (work / "run.sh").chmod(0o644)
    (work / "deep/er/b").unlink()
    (work / "link").unlink()
    (work / "link").mkdir()
    (work / "link/new").write_text("x")
    undo = kept.restore(taken)

    assert contents(work) == before
    assert (work / "run.sh").stat().st_mode & 0o111
    assert [(each.short, each.message) for each in kept.all()] == [
        (undo.short, f"before {taken.short} was restored"), (taken.short, "a message"),
    ]  # fmt: skip
    kept.restore(undo)
    assert (work / "link/new").read_text() == "x"


def test_what_gitignore_names_is_neither_kept_nor_touched(home: Home, work: Path) -> None:
    (work / ".gitignore").write_text("secret\n")
    (work / "secret").write_text("mine")
    kept = Snapshots(home, work)
    taken = kept.create("x")
    (work / "secret").write_text("changed")
    (work / "new").write_text("x")

    kept.restore(taken)

    assert (work / "secret").read_text() == "changed"
    assert not (work / "new").exists()


def test_the_workspaces_own_repository_is_left_alone(home: Home, work: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(work.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", str(work)], env=env, check=True)
    before = contents(work / ".git")
    kept = Snapshots(home, work)

    kept.restore(kept.create("x"))

    assert contents(work / ".git") == before


def test_a_repository_inside_is_left_out_and_told(home: Home, work: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(work.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    inner = work / "vendor" / "inner"
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", "init", "-q", str(inner)], env=env, check=True)
    (inner / "file").write_text("x")
    subprocess.run(["git", "-C", str(inner), *who, "commit", "-q", "--allow-empty", "-m", "x"], env=env, check=True)

    assert Snapshots(home, work).create("x").nested == ("vendor/inner",)


def test_a_diff_shows_what_changed_since(home: Home, work: Path) -> None:
    (work / "a").write_text("old\n")
    kept = Snapshots(home, work)
    taken = kept.create("x")
    (work / "a").write_text("new\n")
    (work / "b").write_text("more\n")

    shown = kept.diff(taken, "--patch").decode()

    assert "-old\n+new\n" in shown
    assert "+more\n" in shown
    assert kept.diff(kept.create("y"), "--patch") == b""


def test_no_filter_of_the_workspaces_choosing_runs(
    home: Home, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trap, user = tmp_path / "ran", tmp_path / "user"
    user.mkdir()
    (user / ".gitconfig").write_text(
        f'[filter "x"]\n clean = touch {trap}\n smudge = touch {trap}\n[diff "x"]\n textconv = touch {trap}; cat\n'
        f"[core]\n fsmonitor = touch {trap}\n hooksPath = {user}\n"
    )
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {trap}")
    (work / ".gitattributes").write_text("* filter=x diff=x eol=crlf ident working-tree-encoding=UTF-16\n")
    (work / "a").write_bytes(b"$Id$\nplain\n")
    kept = Snapshots(home, work)
    taken = kept.create("x")
    (work / "a").write_bytes(b"changed\n")
    kept.diff(taken, "--patch")

    kept.restore(taken)

    assert (work / "a").read_bytes() == b"$Id$\nplain\n"
    assert not trap.exists()


def test_a_link_out_of_the_workspace_is_not_written_through(home: Home, work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (work / "deep").mkdir()
    (work / "deep/file").write_text("ours")
    kept = Snapshots(home, work)
    taken = kept.create("x")
    (work / "deep/file").unlink()
    (work / "deep").rmdir()
    (work / "deep").symlink_to(outside)

    kept.restore(taken)

    assert list(outside.iterdir()) == []
    assert (work / "deep/file").read_text() == "ours"


def test_a_snapshot_is_found_by_the_beginning_of_its_id_and_can_be_forgotten(home: Home, work: Path) -> None:
    kept = Snapshots(home, work)
    with pytest.raises(UsageError, match="no snapshot"):
        kept.find("abc")
    (work / "a").write_text("x")
    taken = kept.create("x")
    with pytest.raises(UsageError, match="no snapshot"):
        kept.find("")

    assert kept.find(taken.id[:4]) == taken
    kept.remove(taken)

    assert kept.all() == []


def test_workspaces_do_not_share_snapshots_and_nothing_is_open_to_others(
    home: Home, work: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (work / "a").write_text("s3cr3t")
    Snapshots(home, work).create("x")

    assert Snapshots(home, other).all() == []
    assert (home.root / "snapshots").stat().st_mode & 0o777 == 0o700


def test_moats_own_folder_is_never_kept(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds moat's own folder"):
        Snapshots(home, tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        Snapshots(home, tmp_path / "gone")


def test_what_git_refuses_is_told(home: Home, work: Path) -> None:
    (work / "a").write_text("x")
    kept = Snapshots(home, work)
    taken = kept.create("x")
    (repository,) = (home.root / "snapshots").iterdir()
    (repository / "objects").rename(home.root / "gone")

    with pytest.raises(SnapshotFailed, match=r"git .* failed"):
        kept.restore(taken)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..", ".git", ".gitignore", ".gitattributes") and len(name.encode()) < 60
    and not name.lower().startswith(".git") and name.isprintable()
)  # fmt: skip


folders = st.dictionaries(names, st.binary(max_size=30), max_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(names, st.binary(max_size=30), max_size=4),
    st.dictionaries(names, st.binary(max_size=30), max_size=4),
)
def test_whatever_the_files_they_come_back(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("any")
    work, kept_home = root / "work", Home(private_folder(root / "moat"))
    work.mkdir()
    for name, data in first.items():
        (work / name).write_bytes(data)
    kept = Snapshots(kept_home, work)
    taken = kept.create("x")
    for name, data in second.items():
        (work / name).write_bytes(data)
    for name in list(first)[::2]:
        (work / name).unlink(missing_ok=True)

    kept.restore(taken)

    assert contents(work) == first


def test_only_what_has_changed_is_kept_again(home: Home, work: Path) -> None:
    kept = Snapshots(home, work)

    first = kept.create_if_changed("first")
    unchanged = kept.create_if_changed("second")
    (work / "a").write_text("changed\n")
    third = kept.create_if_changed("third")

    assert first is not None
    assert unchanged is None
    assert third is not None
    assert [each.message for each in kept.all()] == ["third", "first"]
