"""Files between the host and a run: the workspace both ways, mounts, and nothing of the user's home."""

from __future__ import annotations

import os
from pathlib import Path

from support.places import Place


def test_what_a_run_writes_into_the_workspace_belongs_to_the_user(place: Place) -> None:
    workspace = place.workspace()

    place.ok("sh", "-c", "mkdir made && echo inside > made/file", workspace=workspace)

    made = workspace / "made" / "file"
    assert made.read_text() == "inside\n"
    assert made.stat().st_uid == workspace.stat().st_uid


def test_a_run_reads_what_the_user_wrote(place: Place) -> None:
    workspace = place.workspace()
    place.installation.file(f"{workspace.name}/notes", "from outside\n")

    assert place.ok("cat", "notes", workspace=workspace) == "from outside\n"


def test_folders_are_mounted_wherever_the_user_says(place: Place) -> None:
    source = place.installation.file("shared/file", "shared\n").parent
    targets = ("/srv/data", "/opt/data", "/usr/share/moat-data", "/home/moat/data")
    flags = [word for target in targets for word in ("--mount", f"{source}:{target}")]

    output = place.ok("cat", *(f"{target}/file" for target in targets), flags=tuple(flags))

    assert output == "shared\n" * len(targets)


def test_a_read_only_mount_cannot_be_written_and_another_can(place: Place) -> None:
    first = place.installation.file("first/file", "kept\n").parent
    second = place.installation.file("second/file", "old\n").parent
    script = "echo new > /mnt/second/file; echo new > /mnt/first/file"

    done = place.run(
        "sh", "-c", script, flags=("--mount", f"{first}:/mnt/first:ro", "--mount", f"{second}:/mnt/second")
    )

    assert done.returncode != 0
    assert (first / "file").read_text() == "kept\n"
    assert (second / "file").read_text() == "new\n"


def test_the_users_home_and_moats_own_folder_are_not_inside(place: Place) -> None:
    script = f"ls -d {place.installation.home}/.moat {place.installation.home}/.ssh /root/.ssh 2>/dev/null; echo $HOME"

    assert place.run("sh", "-c", script).stdout == b"/home/moat\n"


def test_a_mount_of_moats_own_folder_is_refused(place: Place) -> None:
    done = place.run("true", flags=("--mount", f"{place.installation.home}/.moat:/mnt/moat"))

    assert done.returncode == 2
    assert b"moat's own folder" in done.stderr


def test_the_engines_socket_is_refused_as_a_mount(place: Place) -> None:
    socket = Path("/var/run/docker.sock")
    if not socket.exists() or not os.access(socket, os.R_OK):
        socket = next(iter((place.installation.home / ".moat").rglob("daemon.sock")))

    done = place.run("true", flags=("--mount", f"{socket}:/mnt/socket"))

    assert done.returncode == 2
    assert b"cannot be mounted" in done.stderr or b"moat's own folder" in done.stderr
