from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.paths import (
    MAX_SOCKET_PATH,
    Home,
    bind_by_folder,
    current_folder,
    find_home,
    private_folder,
    remove_tree,
    set_aside,
    socket_address,
    write_private,
)

NOBODY = 65_534


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_moat_home_names_the_whole_folder() -> None:
    assert find_home({"MOAT_HOME": "/srv/moat"}) == Home(Path("/srv/moat"))


@pytest.mark.parametrize("env", [{}, {"MOAT_HOME": ""}], ids=["absent", "empty"])
def test_without_moat_home_it_is_in_the_users_home(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")

    assert find_home(env).root == Path("/home/somebody/.moat")


def test_the_environment_of_the_process_counts_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", "/srv/moat")

    assert find_home().root == Path("/srv/moat")


def test_a_relative_moat_home_is_refused() -> None:
    with pytest.raises(UsageError, match="not an absolute path"):
        find_home({"MOAT_HOME": "moat"})


def test_every_place_is_under_the_root_and_runs_do_not_share_doors() -> None:
    home = Home(Path("/m"))
    places = [home.config, home.credentials, home.ca, home.daemon, home.runs, home.door("a"), home.door("b"),
              home.inside("a"), home.run("a")]  # fmt: skip

    assert all(place.is_relative_to("/m") for place in places)
    assert len(set(places)) == len(places)
    assert not home.door("a").is_relative_to(home.daemon)


def test_a_private_folder_is_0700_with_its_new_parents_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(UsageError, match="written by others") as caught:
        private_folder(tmp_path / "open")

    assert caught.value.hint == f"run: chmod 700 {tmp_path / 'open'}"


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(UsageError, match="another user"):
        private_folder(tmp_path)


def test_a_private_file_is_0600_whole_and_without_remains(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    write_private(path, b"one")
    path.chmod(0o644)
    write_private(path, b"two")

    assert path.read_bytes() == b"two"
    assert mode(path) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_private(path, b"new")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_on_disk_too_once_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, list[str]]] = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, [entry.name for entry in tmp_path.iterdir()]))

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "file", b"new")

    assert synced == [(False, [f".file.{os.getpid()}.new"]), (True, ["file"])]


def test_what_need_not_outlive_a_loss_of_power_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    write_private(tmp_path / "file", b"old", lasting=False)
    write_private(tmp_path / "file", b"new", lasting=False)

    assert synced == []
    assert (tmp_path / "file").read_bytes() == b"new"
    assert mode(tmp_path / "file") == 0o600


def test_a_link_in_the_drafts_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / f".file.{os.getpid()}.new").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic"):
        write_private(tmp_path / "file", b"new")

    assert victim.read_bytes() == b"mine"


def test_a_short_socket_path_stays_as_it_is() -> None:
    assert socket_address(Path("/tmp/a.sock")) == "/tmp/a.sock"


def test_a_long_socket_path_can_be_bound_and_connected(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_SOCKET_PATH) / "a.sock"
    path.parent.mkdir()

    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(socket_address(path))
        server.listen()
        client.connect(socket_address(path))

    assert path.is_socket()


def test_a_socket_is_bound_at_a_long_path_without_showing_it(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        bind_by_folder(sock, folder / "door.sock")

        assert (folder / "door.sock").is_socket()
        assert "deep" not in sock.getsockname()


def test_what_stands_in_the_way_is_put_aside_and_earlier_ones_stay(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for number in range(3):
        file.write_text(str(number))
        set_aside(file)
    file.mkdir()

    assert set_aside(file).name == "x.broken-4"
    assert (tmp_path / "x.broken").read_text() == "0"
    assert (tmp_path / "x.broken-3").read_text() == "2"
    assert not file.exists()


def test_what_a_run_left_is_removed_though_its_owner_may_not_write_there() -> None:
    folder = Path(tempfile.mkdtemp())  # where nobody can get at it
    made, is_root = folder / "made", os.geteuid() == 0
    try:
        os.chown(folder, *((NOBODY, NOBODY) if is_root else (-1, -1)))
        os.seteuid(NOBODY if is_root else os.geteuid())
        (made / "a" / "b").mkdir(parents=True)
        (made / "a" / "b" / "c").touch()
        (made / "link").symlink_to("/")
        for each in (made / "a" / "b", made / "a", made):
            each.chmod(0o500)

        remove_tree(made)

        assert not made.exists()
        remove_tree(made)  # there is none
        for _ in range(1_200):
            made.mkdir()
            made = made / "d"
        remove_tree(folder / "made")
        assert not (folder / "made").exists()
    finally:
        os.seteuid(0 if is_root else os.geteuid())
        shutil.rmtree(folder)


def test_a_folder_that_was_removed_under_ones_feet_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    assert current_folder() == gone
    gone.rmdir()

    with pytest.raises(UsageError, match="does not exist any more"):
        current_folder()


def test_a_file_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".moat").write_text("mine")
    monkeypatch.setenv("HOME", str(tmp_path))

    for env in ({"MOAT_HOME": str(tmp_path / ".moat")}, {}):
        with pytest.raises(UsageError, match="is no folder"):
            find_home(env)
