from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.config.mounts import checked_target, parse_mount, parse_volume

CWD = Path("/home/someone/project")
HOME = Path("/home/someone")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        pytest.param("/data", Mount(Path("/data"), "/data"), id="a path alone is seen where it is"),
        pytest.param("/data:/in", Mount(Path("/data"), "/in"), id="source and target"),
        pytest.param("/data:/in:ro", Mount(Path("/data"), "/in", True), id="read-only"),
        pytest.param("/data:/in:rw", Mount(Path("/data"), "/in", False), id="writable on purpose"),
        pytest.param("/data:ro", Mount(Path("/data"), "/data", True), id="a path alone, read-only"),
        pytest.param("fixtures:/in", Mount(CWD / "fixtures", "/in"), id="a relative source starts at the folder"),
        pytest.param("~/x:/in", Mount(HOME / "x", "/in"), id="a tilde is the home"),
        pytest.param("/data:/in//deep/./er/", Mount(Path("/data"), "/in/deep/er"), id="the target is normalised"),
        pytest.param("//data://in", Mount(Path("//data"), "/in"), id="a double slash at the start too"),
        pytest.param("/data:/home/moat/.cache", Mount(Path("/data"), "/home/moat/.cache"), id="inside the run's home"),
        pytest.param("/data:/workspace/data", Mount(Path("/data"), "/workspace/data"), id="inside the workspace"),
    ],
)
def test_a_mount_is_read_as_written(text: str, mount: Mount) -> None:
    assert parse_mount(text, CWD, HOME) == mount


@pytest.mark.parametrize("text", ["", ":", "/a:", ":/b", "/a::ro", "/a:/b:ro:ro", "/a:/b:/c", "/a:/b:rx"])
def test_another_shape_is_refused_with_the_shape_as_hint(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_mount(text, CWD, HOME)

    assert refusal.value.hint


@pytest.mark.parametrize(
    "target",
    ["/", "//", "/.", "/proc", "/proc/sys", "/sys/fs", "/dev/null", "/etc", "/etc/ssl/certs/x.crt", "/etc/moat/ca.pem",
     "/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/etc/ld.so.preload", "/workspace", "/workspace/", "/home/moat",
     "/usr", "/usr/bin", "/bin", "/lib64", "/tmp", "/run"],
)  # fmt: skip
def test_nothing_is_laid_over_what_a_run_needs(target: str) -> None:
    with pytest.raises(UsageError, match="nothing can be mounted"):
        checked_target(target)


@pytest.mark.parametrize("target", ["relative", "", "/a/../etc", "/x\0y"])
def test_a_target_is_an_absolute_path_without_detours(target: str) -> None:
    with pytest.raises(UsageError, match="no absolute path"):
        checked_target(target)


def test_a_neighbour_of_a_closed_tree_is_open() -> None:
    assert checked_target("/process") == "/process"
    assert checked_target("/etc/moats") == "/etc/moats"


def test_a_volume_has_a_name_and_a_place() -> None:
    assert parse_volume("cache:/home/moat/.cache/") == ("cache", "/home/moat/.cache")


@pytest.mark.parametrize(
    "text", ["cache", "cache:", ":/x", "Cache:/x", "a/b:/x", "..:/x", "cache:x", "cache:/x/../y", "cache:/etc"]
)
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"volume|inside a run"):
        parse_volume(text)
