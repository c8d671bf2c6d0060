from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.runs.masks import MOST, Hidden, masks

PLACE = Path("/moat/inside/run")
EMPTY = PLACE / ".hidden" / "file"
WORK = Mount(Path("/w"), "/workspace")


def test_folders_get_a_folder_of_their_own_and_files_share_an_empty_one() -> None:
    hidden = [Hidden("b", "folder", "b/"), Hidden(".env", "file", ".env"), Hidden("a/.env", "file", ".env")]

    found = masks({"/workspace": hidden}, [WORK], PLACE)

    assert set(found.mounts) == {
        Mount(found.folders[0], "/workspace/b"),
        Mount(EMPTY, "/workspace/.env", read_only=True),
        Mount(EMPTY, "/workspace/a/.env", read_only=True),
    }
    assert found.files == (EMPTY,)
    assert found.patterns == {"/workspace/b": "b/", "/workspace/.env": ".env", "/workspace/a/.env": ".env"}


def test_nothing_is_laid_over_a_link_or_into_what_is_hidden_already() -> None:
    hidden = [
        Hidden("z", "link", "z"),
        Hidden("a/b", "file", "b"),
        Hidden("a", "folder", "a"),
        Hidden("a", "folder", "x"),
    ]

    found = masks({"/workspace": hidden}, [WORK], PLACE)

    assert [mount.target for mount in found.mounts] == ["/workspace/a"]
    assert found.files == ()


def test_what_another_mount_shows_at_a_place_is_not_hidden_there() -> None:
    mounts = [WORK, Mount(Path("/d"), "/workspace/data"), Mount(Path("/e"), "/workspace/.env")]
    hidden = {
        "/workspace": [Hidden(name, "file", "p") for name in ("data/k", ".env", "datas")],
        "/workspace/data": [Hidden("own", "file", "p")],
    }

    assert set(masks(hidden, mounts, PLACE).patterns) == {"/workspace/datas", "/workspace/data/own"}


def test_more_than_can_be_mounted_is_refused() -> None:
    hidden = [Hidden(str(number), "file", "*") for number in range(MOST + 1)]

    with pytest.raises(UsageError, match="hides 501 files") as caught:
        masks({"/workspace": hidden}, [WORK], PLACE)

    assert "workspace.mode" in caught.value.hint
