from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from moat.config.excludes import parse_exclude
from moat.runs.hidden import hidden_in, open_below
from moat.runs.masks import Hidden


def hidden(root: Path, *patterns: str, below: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(each.path, each.kind) for each in hidden_in(root, [(below, parse_exclude(text)) for text in patterns])]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/.env", "a/b/.env", "node_modules/x/.env", "keys/one.key"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "work"


def test_what_fits_is_found_and_a_folder_that_fits_is_hidden_whole(root: Path) -> None:
    assert hidden(root, ".env", "node_modules") == [
        ("a/.env", "file"),
        ("a/b/.env", "file"),
        ("node_modules", "folder"),
    ]


def test_it_is_told_which_pattern_hides_it(root: Path) -> None:
    assert hidden_in(root, [((), parse_exclude("keys/**"))]) == (Hidden("keys", "folder", "keys/**"),)


def test_a_link_is_hidden_by_what_it_leads_to_below_the_folder(root: Path) -> None:
    (root / "link.pem").symlink_to("keys/one.key")
    (root / "out.pem").symlink_to("/etc/passwd")
    (root / "gone.pem").symlink_to("nowhere")
    (root / "round.pem").symlink_to("round.pem")
    (root / "all.pem").symlink_to(".")

    links = [(f"{name}.pem", "link") for name in ("all", "gone", "link", "out", "round")]
    assert sorted(hidden(root, "*.pem")) == sorted([("keys/one.key", "file"), *links])


def test_no_link_is_followed_to_find_more(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".env").touch()
    (root / "there").symlink_to(tmp_path / "other")
    (root / "back").symlink_to(root)

    assert hidden(root, ".env") == hidden(root, "**/.env") == [
        ("a/.env", "file"), ("a/b/.env", "file"), ("node_modules/x/.env", "file")
    ]  # fmt: skip


def test_a_part_of_the_workspace_is_matched_with_its_whole_path(root: Path) -> None:
    assert hidden(root / "a", "a/.env", below=("a",)) == [(".env", "file")]
    assert hidden(root / "a", "/.env", below=("a",)) == []


def test_a_pipe_or_socket_is_hidden_like_a_file(root: Path) -> None:
    os.mkfifo(root / "pipe")

    assert hidden(root, "pipe") == [("pipe", "file")]


def test_a_file_and_nothing_have_nothing_to_hide(root: Path) -> None:
    assert hidden(root / "a" / ".env", "*") == hidden(root / "absent", "*") == []


def test_a_path_longer_than_the_kernel_takes_is_found(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(250):
        os.mkdir("d" * 20, dir_fd=here)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open(".env", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        ((path, _),) = hidden(tmp_path, ".env")
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 20))], check=True)  # before anybody walks here by path

    assert path.count("/") == 250


def test_a_folder_that_became_a_link_is_not_opened(root: Path) -> None:
    (root / "sub").symlink_to(root / "a")

    with pytest.raises(OSError, match=r"symbolic|directory"):
        open_below(root, ("sub", "b"))
