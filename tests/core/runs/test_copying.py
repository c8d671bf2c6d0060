from __future__ import annotations

import os
from pathlib import Path

import pytest
from moat.runs.copying import NotCopied, copy_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("a/keep", "a/secret", "a/deep/secret", "b/keep", ".env", "-n"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "a").chmod(0o750)
    (folder / "link").symlink_to("a/secret")
    os.utime(folder / "a", (1_000_000_000, 1_000_000_000))
    return folder


def copied(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir())


@pytest.mark.parametrize(
    ("left_out", "kept"),
    [
        ((), ["-n", ".env", "a/deep/secret", "a/keep", "a/secret", "b/keep", "link"]),
        ((".env",), ["-n", "a/deep/secret", "a/keep", "a/secret", "b/keep", "link"]),
        (("a/secret", "a/deep/secret", "link"), ["-n", ".env", "a/keep", "b/keep"]),
        (("a", "a/deep"), ["-n", ".env", "b/keep", "link"]),
    ],
)  # fmt: skip
async def test_all_is_copied_but_what_is_left_out(
    source: Path, tmp_path: Path, left_out: tuple[str, ...], kept: list[str]
) -> None:
    target = tmp_path / "target"
    target.mkdir()

    await copy_tree(source, target, left_out)

    assert copied(target) == kept
    assert (target / "b/keep").read_text() == "b/keep"
    if (target / "a").exists():
        status = (target / "a").stat()
        assert (status.st_mode & 0o777, status.st_mtime) == (0o750, 1_000_000_000)


async def test_more_entries_than_fit_one_command_are_copied(source: Path, tmp_path: Path) -> None:
    for number in range(1_200):
        (source / "a" / f"{number}").touch()
    target = tmp_path / "target"
    target.mkdir()

    await copy_tree(source, target, ["a/secret"])

    assert len(list((target / "a").iterdir())) == 1_202


async def test_a_folder_that_has_become_a_link_is_not_followed(source: Path, tmp_path: Path) -> None:
    (source / "a").rename(tmp_path / "elsewhere")
    (source / "a").symlink_to(tmp_path / "elsewhere")
    target = tmp_path / "target"
    target.mkdir()

    with pytest.raises(NotCopied, match="a: "):
        await copy_tree(source, target, ["a/secret"])

    assert "a/keep" not in copied(target)


async def test_what_cannot_be_copied_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotCopied, match="absent"):
        await copy_tree(tmp_path / "absent", tmp_path, [])
