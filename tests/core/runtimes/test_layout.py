from __future__ import annotations

import socket
from pathlib import Path

import pytest
from moat.runtimes import layout
from moat.runtimes.layout import host_layout


def test_this_host_shows_its_programs_and_no_accounts(tmp_path: Path) -> None:
    found = host_layout([], home=tmp_path)

    assert "/usr" in found.folders
    assert "/bin" in {*found.folders, *found.links}
    assert not {"passwd", "shadow", "ssh", "ssl", "ssl/private", "sudoers"} & set(found.etc)
    assert "/proc/sys" in found.kernel_settings


def test_a_part_of_a_packages_settings_is_shown_by_its_whole_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "ETC", ())
    monkeypatch.setattr(layout, "ETC_PATTERNS", ("ssl/cert[s]",))

    assert host_layout([], home=tmp_path).etc == ("ssl/certs",)


def test_home_elsewhere_needs_no_hiding(tmp_path: Path) -> None:
    assert host_layout([], home=tmp_path).hidden_folders == ()


def test_home_in_a_shown_folder_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SYSTEM_FOLDERS", (str(tmp_path),))
    home = tmp_path / "me" / ".moat"
    home.mkdir(parents=True)

    assert host_layout([], home=home).hidden_folders == (str(home),)


def test_live_socket_in_a_shown_folder_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SYSTEM_FOLDERS", (str(tmp_path),))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "engine.sock"))

        found = host_layout([], home=Path("/nowhere"))

    assert found.hidden_sockets == (str(tmp_path / "engine.sock"),)


def test_folder_that_lacks_a_mounts_target_is_not_shown(tmp_path: Path) -> None:
    name = next(name for name in host_layout([], home=tmp_path).etc if (Path("/etc") / name).is_dir())

    found = host_layout([f"/etc/{name}/no-such-file"], home=tmp_path)

    assert name not in found.etc


def test_system_folder_that_lacks_a_mounts_target_is_shown_entry_by_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_FOLDERS", (str(tmp_path),))
    (tmp_path / "share" / "other").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("bin")

    found = host_layout([str(tmp_path / "share" / "new")], home=Path("/nowhere"))

    shown = {name for name in found.folders if name.startswith(str(tmp_path))}
    assert shown == {str(tmp_path / name) for name in ("bin", "file", "share/other")}
    assert found.links[str(tmp_path / "link")] == "bin"


def test_system_folder_that_has_a_mounts_target_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SYSTEM_FOLDERS", (str(tmp_path),))
    (tmp_path / "here").mkdir()

    assert str(tmp_path) in host_layout([str(tmp_path / "here")], home=Path("/nowhere")).folders


def test_host_without_a_socket_listing_hides_none(tmp_path: Path) -> None:
    assert host_layout([], home=tmp_path, unix_sockets=tmp_path / "absent").hidden_sockets == ()


def test_small_files_are_copied_links_into_the_system_stay_links_and_the_rest_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").write_text("few")
    (tmp_path / "large").write_bytes(bytes(layout.COPIED_BYTES + 1))
    (tmp_path / "linked").symlink_to("/usr/bin/env")
    (tmp_path / "dangling").symlink_to("/usr/no-such-file")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "small")
    (tmp_path / "folder").mkdir()
    names = ("small", "large", "linked", "dangling", "elsewhere", "folder", "absent")
    own = tuple(f"..{tmp_path}/{name}" for name in names)  # /etc/../…
    monkeypatch.setattr(layout, "ETC", own)
    monkeypatch.setattr(layout, "ETC_PATTERNS", ())

    found = host_layout([], home=tmp_path / "moat")

    assert {Path(path).name: text for path, text in found.copies.items()} == {"small": b"few", "elsewhere": b"few"}
    assert {Path(path).name for path in found.etc} == {"large", "folder"}
    links = {Path(path).name: target for path, target in found.links.items() if str(tmp_path) in path}
    assert links == {"linked": "/usr/bin/env"}


def test_what_is_copied_is_not_shown_again(tmp_path: Path) -> None:
    found = host_layout([], home=tmp_path)

    assert "/etc/services" in found.copies or not Path("/etc/services").exists()
    assert not {f"/etc/{name}" for name in found.etc} & {*found.copies, *found.links}
