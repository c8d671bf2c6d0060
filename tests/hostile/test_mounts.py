"""What must never be shown inside: moat's own folder, sockets of the host, the kernel's and the engine's folders."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Done, Installation
from support.world import World

pytestmark = pytest.mark.bubblewrap


@pytest.fixture(scope="module")
def made(world: World) -> Iterator[Installation]:
    """An installation, with a project, links to what must not be mounted, and a folder with a socket."""
    with world.installation() as installation:
        home = installation.home
        installation.file("work/here", "")
        installation.file("holder/deep/here", "")
        (home / "to-moat").symlink_to(home / ".moat")
        (home / "to-runs").symlink_to(home / ".moat" / "runs")
        (home / "to-home").symlink_to(home)
        (home / "to-docker").symlink_to("/var/run/docker.sock")
        (home / "to-root").symlink_to("/")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(home / "holder" / "deep" / "s"))
            sock.listen()
            yield installation


def attempt(made: Installation, workspace: Path, *flags: str, runtime: str = "bubblewrap") -> Done:
    """Try to run in a workspace with flags; what ran leaves a file."""
    return made.run("run", workspace, "--runtime", runtime, *flags, "--", "touch", "/workspace/ran")


@pytest.mark.parametrize(
    "workspace", ["", ".moat", ".moat/runs", ".moat/ca", "to-moat", "to-runs", "to-home", "to-root", "holder"]
)
def test_a_workspace_that_shows_what_moat_keeps_or_holds_a_socket_is_refused(
    made: Installation, workspace: str
) -> None:
    done = attempt(made, made.home / workspace)

    assert done.returncode != 0
    assert b"error:" in done.stderr
    assert not (made.home / workspace / "ran").exists()


@pytest.mark.parametrize(
    "source",
    ["HOME", "HOME/.moat", "HOME/.moat/credentials", "HOME/to-moat", "HOME/to-docker", "HOME/holder",
     "HOME/work/../.moat",
     "/run/docker.sock", "/var/run/docker.sock", "/run", "/", "/proc", "/sys", "/dev", "/var/lib/docker", "/tmp",
     "HOME/holder/deep/s", "HOME/to-root", "HOME/nothing"],
)  # fmt: skip
def test_a_mount_that_shows_such_a_thing_is_refused(made: Installation, source: str) -> None:
    path = source.replace("HOME", str(made.home))

    done = attempt(made, made.home / "work", "--mount", f"{path}:/data")
    read_only = attempt(made, made.home / "work", "--mount", f"{path}:/data:ro")

    assert (done.returncode != 0, read_only.returncode != 0) == (True, True)
    assert b"error:" in done.stderr
    assert not (made.home / "work" / "ran").exists()


@pytest.mark.parametrize(
    "target",
    ["/etc/ssl", "/etc/ssl/certs", "/etc/moat", "/etc/moat/ca.pem", "/etc/hosts", "/etc/resolv.conf", "/etc", "/proc",
     "/proc/sys", "/sys", "/dev", "/", "/usr", "/workspace", "/home/moat", "/data/../etc/ssl", "data",
     "/etc/ld.so.preload",
     "/etc/nsswitch.conf", "/run"],
)  # fmt: skip
def test_nothing_can_be_mounted_over_what_is_moats(made: Installation, target: str) -> None:
    done = attempt(made, made.home / "work", "--mount", f"/opt:{target}")

    assert done.returncode != 0
    assert not (made.home / "work" / "ran").exists()


RUNTIMES = ("bubblewrap", pytest.param("docker", marks=pytest.mark.docker))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_ordinary_mount_works(made: Installation, runtime: str) -> None:
    made.file("data/word", "fine")
    done = made.run("run", made.home / "work", "--runtime", runtime, "--mount", f"{made.home}/data:/data:ro",
                    "--", "cat", "/data/word")  # fmt: skip

    assert (done.returncode, done.stdout) == (0, b"fine"), done.stderr


@pytest.mark.docker
@pytest.mark.parametrize("source", [".moat", "to-home", "to-docker", "holder"])
def test_in_docker_the_same_mounts_are_refused(made: Installation, source: str) -> None:
    done = attempt(made, made.home / "work", "--mount", f"{made.home / source}:/data", runtime="docker")

    assert (done.returncode != 0, b"error:" in done.stderr) == (True, True)
    assert not (made.home / "work" / "ran").exists()
