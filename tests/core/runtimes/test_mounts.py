from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.runtimes.mounts import check_mounts, overlaps, sockets_in


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "inside" / "run_1").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def live_socket(folder: Path) -> Iterator[Path]:
    path = folder / "deep" / "agent.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        yield path


def check(home: Path, source: Path | str, target: str = "/workspace", *, allow_sockets: bool = False) -> None:
    mounts = [Mount(Path(source), target)]
    check_mounts(mounts, home=home, ours=home / "inside" / "run_1", allow_sockets=allow_sockets)


def test_a_socket_that_a_run_left_in_a_volume_is_no_way_out(home: Path) -> None:
    path = home.with_name("home-volumes") / "x" / "cache"
    path.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path / "s"))

        check(home, path, "/cache")


def test_ordinary_folder_may_be_mounted(home: Path, folder: Path) -> None:
    check(home, folder)


def test_files_of_ours_may_be_mounted_anywhere(home: Path) -> None:
    file = home / "inside" / "run_1" / "bundle.pem"
    file.write_text("")

    check(home, file, "/etc/ssl/certs/ca-certificates.crt")


def test_another_runs_files_are_moats(home: Path) -> None:
    (home / "inside" / "run_2").mkdir()

    with pytest.raises(SandboxFailed, match="overlap"):
        check(home, home / "inside" / "run_2")


@pytest.mark.parametrize("where", ["home", "home/inside", ".", "link", "project/link"])
def test_moats_folder_is_never_shown(tmp_path: Path, home: Path, folder: Path, where: str) -> None:
    (tmp_path / "link").symlink_to(home)
    (folder / "link").symlink_to(tmp_path)

    with pytest.raises(SandboxFailed, match="overlap") as caught:
        check(home, tmp_path / where, "/data")
    assert caught.value.hint


@pytest.mark.parametrize("source", ["/", "/proc", "/proc/self", "/sys/kernel", "/dev/shm", "/etc", "/var/lib/docker"])
def test_the_systems_own_places_are_never_shown(home: Path, source: str) -> None:
    if not Path(source).exists():
        source = "/proc"
    with pytest.raises(SandboxFailed, match=r"cannot be mounted|overlap"):
        check(home, source, "/data")


def test_socket_is_refused_wherever_it_lies(home: Path, folder: Path, live_socket: Path) -> None:
    for source in (live_socket, live_socket.parent, folder):
        with pytest.raises(SandboxFailed, match=r"agent\.sock") as caught:
            check(home, source)
        assert "--allow-socket" in caught.value.hint


def test_socket_behind_a_symlink_is_refused(home: Path, folder: Path, live_socket: Path) -> None:
    link = folder.parent / "innocent"
    link.symlink_to(live_socket)

    with pytest.raises(SandboxFailed, match=r"agent\.sock"):
        check(home, link)


def test_allowed_sockets_lift_only_the_socket_check(home: Path, folder: Path, live_socket: Path) -> None:
    check(home, folder, allow_sockets=True)

    with pytest.raises(SandboxFailed, match="overlap"):
        check(home, home, allow_sockets=True)


def test_symlinks_to_folders_are_not_followed_by_the_search(folder: Path, live_socket: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    (other / "link").symlink_to(folder)
    (other / "file").write_text("")

    assert list(sockets_in(other)) == []
    assert list(sockets_in(folder)) == [live_socket]


@pytest.mark.parametrize(
    "target",
    ["relative", "/", "/a/../etc", "/proc", "/proc/sys", "/etc", "/etc/moat/gate.py", "/etc/ssl", "/etc/hosts"],
)
def test_places_that_decide_trust_cannot_be_covered(home: Path, folder: Path, target: str) -> None:
    with pytest.raises(SandboxFailed):
        check(home, folder, target)


def test_missing_source_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SandboxFailed, match="there is nothing"):
        check(home, tmp_path / "absent")


def test_overlap_goes_by_whole_names() -> None:
    assert overlaps(Path("/a/b"), Path("/a"))
    assert overlaps(Path("/a"), Path("/a/b"))
    assert not overlaps(Path("/a/b"), Path("/a/bc"))
