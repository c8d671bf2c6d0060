from __future__ import annotations

from pathlib import Path

import pytest
from moat.paths import Home, private_folder
from moat.runs.volumes import (
    VolumeFailed,
    all_volumes,
    make_place,
    make_volumes,
    remove_volume,
    users,
    volumes_of_nobody,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(private_folder(tmp_path / "moat"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_a_volume_is_made_once_and_keeps_what_is_in_it(home: Home, work: Path) -> None:
    make_volumes(home, work, ["cache"])
    (volume,) = all_volumes(home)
    (volume.path / "kept").touch()

    make_volumes(home, work, ["cache", "data"])

    assert [(each.name, each.workspace) for each in all_volumes(home)] == [("cache", work), ("data", work)]
    assert (volume.path / "kept").exists()
    assert volume.path.stat().st_mode & 0o777 == home.volumes.stat().st_mode & 0o777 == 0o700


def test_volumes_of_one_name_are_each_workspaces_own(home: Home, work: Path) -> None:
    for folder in (work, work / "sub"):
        make_volumes(home, folder, ["cache"])

    first, second = all_volumes(home)

    assert first.path != second.path
    assert (first.workspace, second.workspace) == (work, work / "sub")


def test_a_volume_is_removed_whole_and_the_others_stay(home: Home, work: Path) -> None:
    make_volumes(home, work, ["a", "b"])
    first, second = all_volumes(home)
    (first.path / "x").mkdir()

    remove_volume(first)
    assert all_volumes(home) == [second]
    remove_volume(second)

    assert list(home.volumes.iterdir()) == []


def test_a_removal_that_was_cut_short_is_finished(home: Home, work: Path) -> None:
    make_volumes(home, work, ["a"])
    (volume,) = all_volumes(home)
    (volume.path.with_name(".a.removed") / "half").mkdir(parents=True)

    assert all_volumes(home) == [volume]
    remove_volume(volume)

    assert list(home.volumes.iterdir()) == []


def test_what_stands_in_the_way_is_told(home: Home, work: Path) -> None:
    home.volumes.write_text("")

    with pytest.raises(VolumeFailed, match="cannot be made"):
        make_volumes(home, work, ["a"])


def test_a_volume_that_is_not_there_cannot_be_removed(home: Home, work: Path) -> None:
    make_volumes(home, work, ["a"])
    (volume,) = all_volumes(home)
    volume.path.rmdir()

    with pytest.raises(VolumeFailed, match="the volume a cannot be removed"):
        remove_volume(volume)


def test_who_works_in_its_workspace_may_use_a_volume(home: Home, work: Path) -> None:
    make_volumes(home, work, ["a"])
    (volume,) = all_volumes(home)

    assert users(volume, [("calm-otter", str(work)), ("other", "/elsewhere")]) == ["calm-otter"]


def test_volumes_of_a_workspace_that_is_gone_are_nobodys(home: Home, work: Path) -> None:
    make_volumes(home, work, ["a"])
    assert volumes_of_nobody(home) == []
    work.rmdir()

    assert volumes_of_nobody(home) == [(home.volumes_of(work), work, ["a"])]


def test_a_place_in_the_workspace_is_made_and_no_link_is_followed(work: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (work / "link").symlink_to(tmp_path / "other")

    make_place(work, "a/b")
    make_place(work, "a/b/c")
    make_place(work, "link/x")

    assert (work / "a" / "b" / "c").is_dir()
    assert list((tmp_path / "other").iterdir()) == []
