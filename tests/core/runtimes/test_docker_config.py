"""What the engine is told to create."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moat.api.container import Limits, Mount
from moat.api.images import BuildOrder
from moat.api.runtimes import SandboxSpec
from moat.api.services import Sidecar
from moat.runtimes.docker_config import (
    NETWORK_FILES,
    GateProgram,
    agent_container,
    build_container,
    gate_container,
    home_folders,
    image_config,
    labels,
    service_container,
    service_name,
    user_inside,
)

MARKS = {"moat.run": "run_0123456789ab", "moat.home": "0"}
PROGRAM = GateProgram(("/usr/bin/python3", "-I", "-S"), (Path("/usr"),), {Path("/m/gate.py"): "/gate.py"})


def a_gate() -> Any:
    return gate_container("moat-gate:1", PROGRAM, Path("/h/doors/r"), "1001:1002", MARKS)


def an_agent(network: str = "container:gate", **changes: Any) -> Any:
    wanted: dict[str, Any] = {
        "run_id": "run_0123456789ab",
        "name": "calm-otter",
        "argv": ("git", "status"),
        "env": {"B": "2", "A": "1"},
        "mounts": (Mount(Path("/w"), "/workspace"),),
        "workdir": "/workspace",
        "home": "/home/moat",
        "image": "debian",
    }
    spec = SandboxSpec(**{**wanted, **changes})
    return agent_container(spec, network=network, user="1001:1002", seccomp='{"x": 1}', marks=MARKS)


def mounted(config: Any) -> dict[str, Mapping[str, Any]]:
    return {mount["Target"]: mount for mount in config["HostConfig"]["Mounts"]}


def test_the_gate_has_no_network_and_a_root_that_cannot_be_written() -> None:
    host = a_gate()["HostConfig"]

    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert host["Sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    assert host["SecurityOpt"] == ["no-new-privileges:true", "label=disable"]


def test_the_gate_sees_the_door_and_its_program_and_can_write_nothing() -> None:
    mounts = mounted(a_gate())

    assert set(mounts) == {"/usr", "/gate.py", "/door"}
    assert all(mount["ReadOnly"] for mount in mounts.values())


def test_the_gate_is_told_whom_to_become() -> None:
    assert a_gate()["Entrypoint"] == ["/usr/bin/python3", "-I", "-S", "/gate_start.py", "1001", "1002"]


def test_the_command_has_the_gates_network_and_no_privilege() -> None:
    agent = an_agent()
    host = agent["HostConfig"]

    assert host["NetworkMode"] == "container:gate"
    assert (host["CapDrop"], "CapAdd" in host, "Privileged" in host) == (["ALL"], False, False)
    assert host["SecurityOpt"] == ["no-new-privileges:true", 'seccomp={"x": 1}']
    assert (agent["User"], host["PidsLimit"] > 0, host["Init"]) == ("1001:1002", True, True)


@pytest.mark.parametrize("config", [a_gate(), an_agent()], ids=["gate", "command"])
def test_nothing_comes_back_by_itself_or_is_written_down(config: Any) -> None:
    assert config["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert config["HostConfig"]["LogConfig"] == {"Type": "none"}
    assert config["StdinOnce"]
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Labels"] == MARKS


def test_the_commands_words_are_passed_whole_and_the_images_own_are_not_used() -> None:
    agent = an_agent(argv=("sh", "-c", "a b; c"))

    assert (agent["Entrypoint"], agent["Cmd"]) == (["sh", "-c", "a b; c"], [])


def test_the_environment_is_the_specs() -> None:
    assert an_agent()["Env"][:2] == ["A=1", "B=2"]


def test_a_terminal_is_made_only_when_there_is_one() -> None:
    assert an_agent()["Tty"] is False
    assert an_agent(terminal=(33, 44))["Tty"] is True
    assert an_agent(terminal=(33, 44))["HostConfig"]["ConsoleSize"] == [33, 44]


def test_names_and_addresses_inside_are_ours_and_read_only() -> None:
    mounts = mounted(an_agent())

    for ours in NETWORK_FILES:
        assert mounts[ours.target]["Source"] == str(ours.source)
        assert mounts[ours.target]["ReadOnly"]
        assert ours.source.is_file()


def test_another_file_over_one_of_ours_is_left_out() -> None:
    agent = an_agent(mounts=(Mount(Path("/x"), "/etc/hosts"), Mount(Path("/w"), "/workspace")))

    assert [m["Source"] for m in agent["HostConfig"]["Mounts"] if m["Target"] == "/etc/hosts"] == [
        str(NETWORK_FILES[0].source)
    ]


def test_a_network_of_its_own_keeps_the_engines_files() -> None:
    assert not {mount.target for mount in NETWORK_FILES} & set(mounted(an_agent(network="moat-run")))


def test_the_way_to_a_mount_in_the_home_is_the_runs_own() -> None:
    assert home_folders("/home/moat", ["/home/moat/.a/b/file", "/workspace"]) == [
        "/home/moat",
        "/home/moat/.a",
        "/home/moat/.a/b",
    ]


def test_what_lies_in_a_mounted_folder_is_left_alone() -> None:
    assert home_folders("/home/moat", ["/home/moat/.a", "/home/moat/.a/b/file"]) == ["/home/moat"]


def test_a_home_that_is_mounted_is_not_covered() -> None:
    assert home_folders("/home/moat", ["/home/moat"]) == []


def test_the_home_belongs_to_the_runs_user() -> None:
    assert "uid=1001,gid=1002" in an_agent()["HostConfig"]["Tmpfs"]["/home/moat"]


def test_a_rootless_engines_root_is_the_invoker() -> None:
    assert user_inside(["name=seccomp,profile=default", "name=rootless"], 1001, 1002) == "0:0"
    assert user_inside(["name=seccomp,profile=default"], 1001, 1002) == "1001:1002"


def test_marks_keep_installations_apart_without_naming_them() -> None:
    one, other = (labels("run_0123456789ab", Path(home)) for home in ("/home/a/.moat", "/home/b/.moat"))

    assert one["moat.run"] == other["moat.run"]
    assert one["moat.home"] != other["moat.home"]
    assert "home" not in one["moat.home"]


def test_the_doors_folder_can_be_written_only_where_sockets_are_made_in_it() -> None:
    gate = gate_container("moat-gate:1", PROGRAM, Path("/h/doors/r"), "1001:1002", MARKS, has_sockets=True)

    assert [target for target, mount in mounted(gate).items() if not mount["ReadOnly"]] == ["/door"]


def test_a_run_is_held_to_its_limits() -> None:
    limits = Limits(memory_bytes=64 << 20, cpus=0.5, pids=50, ulimits={"nofile": (64, 128), "core": (0, 0)})

    host = an_agent(limits=limits)["HostConfig"]

    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 64 << 20)
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 50_000)
    assert host["PidsLimit"] == 50
    assert host["Ulimits"] == [{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "nofile", "Soft": 64, "Hard": 128}]


def test_without_limits_there_is_one_on_processes_and_no_other() -> None:
    host = an_agent()["HostConfig"]

    assert host["PidsLimit"] == 4096
    assert {"Memory", "MemorySwap", "CpuQuota", "Ulimits"} & set(host) == set()


ORDER = BuildOrder(
    "run_0123456789ab", "sha256:a", "debian", "moat/debian:1", ("/bin/sh", "/dev/moat/build"),
    (Mount(Path("/h/build"), "/dev/moat/build", read_only=True),), ("go@1.23", "rust"),
)  # fmt: skip


def test_a_build_is_root_of_its_own_files_and_of_nothing_else() -> None:
    config: Any = build_container(ORDER, "container:gate", '{"x": 1}', MARKS)
    host = config["HostConfig"]

    assert (config["Image"], config["User"], host["NetworkMode"]) == ("sha256:a", "0:0", "container:gate")
    assert host["CapDrop"] == ["ALL"]
    assert not {"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "SYS_PTRACE", "MKNOD"} & set(host["CapAdd"])
    assert host["SecurityOpt"] == ["no-new-privileges:true", 'seccomp={"x": 1}']


def test_nothing_that_a_build_is_told_stays_in_its_image() -> None:
    config: Any = build_container(ORDER, "container:gate", "{}", MARKS)

    assert "Env" not in config
    assert not config["HostConfig"].get("Init")  # its mount point would stay
    assert all(target.startswith("/dev/moat/") for target in mounted(config).keys() - {m.target for m in NETWORK_FILES})
    assert all(mount["ReadOnly"] for mount in mounted(config).values())


def test_an_image_is_configured_as_the_one_below() -> None:
    base = {"Env": ["A=1"], "Cmd": ["bash"], "User": "app", "WorkingDir": "/srv", "Labels": {"theirs": "yes"}}

    made, empty = (image_config(each, ORDER, MARKS) for each in (base, {"Entrypoint": None}))

    assert {**made, "Labels": {}} == {**base, "Entrypoint": [], "Labels": {}}
    assert made["Labels"] == {
        "theirs": "yes", "moat.run": "", "moat.home": "0", "moat.base": "debian", "moat.dependencies": "go@1.23 rust",
    }  # fmt: skip
    assert (empty["Entrypoint"], empty["Cmd"], empty["User"]) == ([], [], "0:0")


def test_a_service_is_its_image_held_like_a_run_and_shown_nothing() -> None:
    service = Sidecar("db", "postgres:17", 5432, {"B": "2", "A": "1"}, ("-c", "x"), (), "postgres")
    limits = Limits(memory_bytes=1 << 30, pids=64)
    config: Any = service_container(service, limits, network="container:gate", seccomp="{}", marks=MARKS)

    host, agent = config["HostConfig"], an_agent()["HostConfig"]
    assert (config["Image"], config["Cmd"], config["User"], config["Env"]) == (
        "postgres:17", ["-c", "x"], "postgres", ["A=1", "B=2"],
    )  # fmt: skip
    assert "Entrypoint" not in config
    assert (host["Memory"], host["PidsLimit"], host["NetworkMode"]) == (1 << 30, 64, "container:gate")
    for key in ("CapDrop", "RestartPolicy", "UsernsMode"):
        assert host[key] == agent[key]
    assert host["SecurityOpt"] == ["no-new-privileges:true", "seccomp={}"]
    assert {mount["Target"] for mount in host["Mounts"]} == {mount.target for mount in NETWORK_FILES}
    plain: Any = service_container(replace(service, argv=(), user=""), Limits(), network="x", seccomp="", marks=MARKS)
    assert not {"Cmd", "User", "Entrypoint"} & plain.keys()
    assert service_name("run_1", "db") == "moat-run_1-service-db"
