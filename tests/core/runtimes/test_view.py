from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.runtimes import SandboxSpec
from moat.runtimes.view import HostLayout, arguments, host_name, own_files

SPEC = SandboxSpec(
    "run_1", "calm-otter", ("true",), {"A": "1"}, (Mount(Path("/src"), "/workspace"),), "/workspace", "/home/moat"
)
LAYOUT = HostLayout(folders=("/usr",), etc=("localtime",), links={"/bin": "usr/bin"})


def triples(
    spec: SandboxSpec = SPEC, layout: HostLayout = LAYOUT, *, own_network: bool = False
) -> list[tuple[str, ...]]:
    options = arguments(spec, layout, files={"/etc/hosts": 9}, filter_fd=8, own_network=own_network)
    return list(zip(options, options[1:], options[2:], strict=False))


def options(spec: SandboxSpec = SPEC, *, own_network: bool = False) -> list[str]:
    return arguments(spec, LAYOUT, files={}, filter_fd=8, own_network=own_network)


@pytest.mark.parametrize(
    "flag",
    [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--disable-userns",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
    ],
)
def test_isolation_is_never_left_out(flag: str) -> None:
    assert flag in options()


def test_capabilities_are_dropped_and_the_filter_is_given() -> None:
    pairs = list(zip(options(), options()[1:], strict=False))

    assert ("--cap-drop", "ALL") in pairs
    assert ("--seccomp", "8") in pairs


def test_network_is_unshared_only_where_bwrap_must_do_it() -> None:
    assert "--unshare-net" not in options()
    assert "--unshare-net" in options(own_network=True)


def test_system_is_read_only_and_the_workspace_is_not() -> None:
    found = triples()

    assert ("--ro-bind", "/usr", "/usr") in found
    assert ("--symlink", "usr/bin", "/bin") in found
    assert ("--ro-bind", "/etc/localtime", "/etc/localtime") in found
    assert ("--bind", "/src", "/workspace") in found
    assert not [one for one in found if one[0] == "--bind" and one[1] != "/src"]


def test_our_files_are_given_by_descriptor_and_read_only() -> None:
    found = triples()

    assert found.index(("--file", "9", "/etc/hosts")) < found.index(("--remount-ro", "/etc", "--remount-ro"))


def test_read_only_mount_is_read_only() -> None:
    spec = replace(SPEC, mounts=(Mount(Path("/src"), "/data", read_only=True),))

    assert ("--ro-bind", "/src", "/data") in triples(spec)


def test_folder_is_mounted_before_what_lies_in_it() -> None:
    spec = replace(SPEC, mounts=(Mount(Path("/b"), "/x/y"), Mount(Path("/a"), "/x")))
    found = triples(spec)

    assert found.index(("--bind", "/a", "/x")) < found.index(("--bind", "/b", "/x/y"))


def test_what_must_not_be_seen_is_covered_and_kernel_settings_are_read_only_after_proc() -> None:
    layout = replace(
        LAYOUT,
        hidden_folders=("/usr/.moat",),
        hidden_sockets=("/usr/x.sock",),
        kernel_settings=("/proc/sys",),
        kernel_secrets=("/proc/keys",),
    )
    found = triples(layout=layout)
    proc = next(place for place, one in enumerate(found) if one[:2] == ("--proc", "/proc"))

    assert ("--ro-bind", "/dev/null", "/usr/x.sock") in found
    assert any(one[:2] == ("--tmpfs", "/usr/.moat") for one in found)
    assert found.index(("--ro-bind", "/proc/sys", "/proc/sys")) > proc
    assert found.index(("--ro-bind", "/dev/null", "/proc/keys")) > proc


def test_environment_is_exactly_the_specs() -> None:
    found = options()

    assert found[found.index("--clearenv") + 1 :] == ["--setenv", "A", "1"]


@pytest.mark.parametrize(
    ("name", "host"), [("calm-otter", "calm-otter"), ("a_b", "a-b"), ("x" * 80, "x" * 63), ("", "moat"), ("_", "moat")]
)
def test_run_name_becomes_a_host_name(name: str, host: str) -> None:
    assert host_name(name) == host


def test_own_files_point_every_lookup_at_the_door() -> None:
    files = own_files("calm-otter")

    assert files["/etc/resolv.conf"] == "nameserver 127.0.0.1\n"
    assert "127.0.0.1 localhost calm-otter" in files["/etc/hosts"]
    assert "hosts: files dns\n" in files["/etc/nsswitch.conf"]
    assert "moat:x:1000:1000:" in files["/etc/passwd"]
