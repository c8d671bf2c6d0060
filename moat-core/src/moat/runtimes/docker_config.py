"""What the engine is told to create, as values: the gate's container and the run's. Pure; makes nothing, asks nobody.

    gate   --network none, its own empty image, sees /usr, the door's folder and the gate program, nothing else
    agent  --network container:<gate>, the user's image, workspace, files of ours, home of its own

Field names are the Engine API's (v1.41). All of it shows in `docker inspect`, the variables that a user set too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from moat.api.container import Limits, Mount
from moat.api.images import BuildOrder
from moat.api.runtimes import SandboxSpec
from moat.api.services import Sidecar

if TYPE_CHECKING:
    from aiodocker.types import JSONObject, JSONValue

RUN_LABEL, HOME_LABEL = "moat.run", "moat.home"
BASE_LABEL, DEPENDENCIES_LABEL = "moat.base", "moat.dependencies"  # of images that were made here
HOSTNAME = "moat"  # a container that joins the gate's network takes its name
DOOR_INSIDE, GATE_INSIDE, START_INSIDE = "/door", "/gate.py", "/gate_start.py"
# The engine gives a joining container the gate's copies of these, writable, unless something is mounted over them.
NETWORK_FILES = tuple(
    Mount(Path(__file__).with_name("network_files") / name, f"/etc/{name}", read_only=True)
    for name in ("hosts", "resolv.conf", "hostname")
)
INIT_VARIABLES = ("TINI_KILL_PROCESS_GROUP=1",)  # a signal is for the command and its children, as from a terminal
# What package managers need to own, open and hand over files; root without it is nobody. None of the network or kernel.
BUILD_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")
AGENT_PIDS, GATE_PIDS = 4096, 16
CPU_PERIOD_US = 100_000  # the engine's default; with NanoCpus it would refuse more than the machine has
NO_IMAGE_HEALTHCHECK = {"Test": ["NONE"]}  # an image's own check would run beside the command


@dataclass(frozen=True, slots=True)
class GateProgram:
    """The gate's code and its Python. read_only: host paths, same inside. files: host path → path inside."""

    python: tuple[str, ...]
    read_only: tuple[Path, ...]
    files: Mapping[Path, str]


def container_name(run_id: str) -> str:
    """Return the name of the run's container."""
    return f"moat-{run_id}"


def service_name(run_id: str, service: str) -> str:
    """Return the name of a service's container."""
    return f"moat-{run_id}-service-{service}"


def gate_name(run_id: str) -> str:
    """Return the name of the run's gate."""
    return f"moat-{run_id}-gate"


def labels(run_id: str, home: Path) -> dict[str, str]:
    """Return what marks everything of one run; home keeps installations apart without telling where they are."""
    return {RUN_LABEL: run_id, HOME_LABEL: hashlib.sha256(str(home).encode()).hexdigest()[:16]}


def user_inside(security_options: Iterable[str], uid: int, gid: int) -> str:
    """Return who owns the processes inside, so that files in the workspace belong to the invoker.

    A rootless engine maps its container's root, and nobody else, to the invoker.
    """
    return "0:0" if any("rootless" in option for option in security_options) else f"{uid}:{gid}"


def gate_container(
    image: str, program: GateProgram, door: Path, user: str, marks: dict[str, str], *, has_sockets: bool = False
) -> JSONObject:
    """Return the gate's container: it lives as long as its input stays open, and removes itself.

    has_sockets: it makes unix sockets in the door's folder, which the run is shown.

    It starts as root with three capabilities, for one address on lo, and gives them up by itself (gate_start.py).
    """
    mounts = [Mount(path, str(path), read_only=True) for path in program.read_only]
    mounts += [Mount(path, inside, read_only=True) for path, inside in program.files.items()]
    mounts.append(Mount(door, DOOR_INSIDE, read_only=not has_sockets))
    return {
        **_common(image, (*program.python, START_INSIDE, *user.split(":")), "0:0", marks),
        "Hostname": HOSTNAME,
        "WorkingDir": "/",
        "HostConfig": {
            **_confinement(GATE_PIDS),
            "AutoRemove": True,
            "CapAdd": ["NET_ADMIN", "SETUID", "SETGID"],
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},  # it binds 53, 80 and 443 without any capability
            # SELinux would keep it from the door, which is not labelled for containers; it is ours and holds nothing.
            "SecurityOpt": ["no-new-privileges:true", "label=disable"],
            "Mounts": [bind(mount) for mount in mounts],
        },
    }


def idle_container(image: str, network: str, marks: Mapping[str, str]) -> JSONObject:
    """Return a container that does nothing for a while, so that its network is there. image: as the gate's, empty."""
    return {
        **_common(image, ("/usr/bin/sleep", "60"), "0:0", dict(marks)),
        "HostConfig": {
            **_confinement(GATE_PIDS),
            "AutoRemove": True,
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges:true", "label=disable"],
            "Mounts": [bind(Mount(Path("/usr"), "/usr", read_only=True))],
        },
    }


def agent_container(spec: SandboxSpec, *, network: str, user: str, seccomp: str, marks: dict[str, str]) -> JSONObject:
    """Return the run's container. network: `container:<gate>`. seccomp: a profile, as JSON text."""
    mounts = spec.mounts
    if network.startswith("container:"):
        ours = {mount.target for mount in NETWORK_FILES}
        mounts = (*(mount for mount in spec.mounts if mount.target not in ours), *NETWORK_FILES)
    host: JSONObject = {
        **_confinement(spec.limits.pids or AGENT_PIDS),
        **limits_of(spec.limits),
        "Init": True,  # reaps orphans and passes signals on, which a command that is process 1 would not
        "NetworkMode": network,
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp}"],
        "Mounts": [bind(mount) for mount in mounts],
        "Tmpfs": dict.fromkeys(home_folders(spec.home, [mount.target for mount in mounts]), _tmpfs(user)),
    }
    if spec.terminal is not None:
        host = {**host, "ConsoleSize": list(spec.terminal)}  # engines before 23 ignore it; the launcher resizes as well
    return {
        **_common(spec.image, spec.argv, user, marks),
        "Env": [*(f"{name}={value}" for name, value in sorted(spec.env.items())), *INIT_VARIABLES],
        "WorkingDir": spec.workdir,
        "Tty": spec.terminal is not None,
        "HostConfig": host,
    }


def service_container(
    service: Sidecar, limits: Limits, *, network: str, seccomp: str, marks: dict[str, str]
) -> JSONObject:
    """Return a service's container: its image as it is, in the run's network, held as the run's own is.

    It sees no file of this machine but those that stand for the network's names. Its output is kept by the engine, and
    gone with it, so that what it said last can be told.
    """
    return {
        "Image": service.image,
        **({"Cmd": list(service.argv)} if service.argv else {}),
        **({"User": service.user} if service.user else {}),
        "Env": [f"{name}={value}" for name, value in sorted(service.env.items())],
        "Labels": dict(marks),
        "Healthcheck": NO_IMAGE_HEALTHCHECK,
        "HostConfig": {
            **_confinement(limits.pids or AGENT_PIDS),
            **limits_of(limits),
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "Init": True,
            "NetworkMode": network,
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp}"],
            "Mounts": [bind(mount) for mount in NETWORK_FILES],
        },
    }


def build_container(order: BuildOrder, network: str, seccomp: str, marks: dict[str, str]) -> JSONObject:
    """Return the container that makes an image: root of its own files, with no more than the image's own environment.

    No init of the engine's: its mount point would stay in the image.
    """
    return {
        "Image": order.base,
        "Entrypoint": list(order.argv),
        "Cmd": [],
        "User": "0:0",
        "Labels": dict(marks),
        "Healthcheck": NO_IMAGE_HEALTHCHECK,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **_confinement(AGENT_PIDS),
            "CapAdd": list(BUILD_CAPABILITIES),
            "NetworkMode": network,
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp}"],
            "Mounts": [bind(mount) for mount in (*order.mounts, *NETWORK_FILES)],
        },
    }


def image_config(base: Mapping[str, Any], order: BuildOrder, marks: Mapping[str, str]) -> JSONObject:
    """Return the configuration of an image that was made: that of the image below, with labels.

    The engine fills what is missing from the container, so everything that differs there is said.
    A container made of the image by others inherits its labels, so none of them names a run.
    """
    return {
        **base,
        "User": base.get("User") or "0:0",
        "Entrypoint": base.get("Entrypoint") or [],
        "Cmd": base.get("Cmd") or [],
        "Labels": {
            **(base.get("Labels") or {}),
            RUN_LABEL: "",
            HOME_LABEL: marks[HOME_LABEL],
            BASE_LABEL: order.base_name,
            DEPENDENCIES_LABEL: " ".join(order.dependencies),
        },
    }


def limits_of(limits: Limits) -> JSONObject:
    """Return the part of a HostConfig that holds a container to limits; pids are in its confinement."""
    memory, quota = limits.memory_bytes, max(1000, round(limits.cpus * CPU_PERIOD_US))
    by_name = sorted(limits.ulimits.items())
    ulimits: list[JSONValue] = [{"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in by_name]
    return {
        **({"Memory": memory, "MemorySwap": memory} if memory else {}),  # no swap: it would double what a run gets
        **({"CpuPeriod": CPU_PERIOD_US, "CpuQuota": quota} if limits.cpus else {}),
        **({"Ulimits": ulimits} if ulimits else {}),
    }


def home_folders(home: str, targets: Sequence[str]) -> list[str]:
    """Return the folders that must be the run's own: its home, and those on the way to each mount inside it.

    The engine would make the latter itself, owned by root. What lies in a mounted folder is left alone.
    """
    folders = {home}
    for target in map(PurePosixPath, targets):
        folders |= {str(parent) for parent in target.parents if parent.is_relative_to(home)}
    return sorted(folder for folder in folders if not any(PurePosixPath(folder).is_relative_to(t) for t in targets))


def _common(image: str, argv: Sequence[str], user: str, marks: dict[str, str]) -> JSONObject:
    return {
        "Image": image,
        "Entrypoint": list(argv),  # replaces the image's own, and with it the image's command
        "Cmd": [],
        "User": user,
        "Labels": dict(marks),
        "Healthcheck": NO_IMAGE_HEALTHCHECK,
        "OpenStdin": True,
        "StdinOnce": True,  # input ends for good with the first attachment: so the launcher's death is seen
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
    }


def _confinement(pids: int) -> JSONObject:
    return {
        "CapDrop": ["ALL"],
        "PidsLimit": pids,
        "RestartPolicy": {"Name": "no"},  # restarted, it would come back without its door
        "UsernsMode": "host",  # an engine that shifts user ids would make the invoker's files somebody else's
        "LogConfig": {"Type": "none"},  # output goes to the attachment only, never to the engine's disk
    }


def bind(mount: Mount) -> JSONObject:
    """Return a mount as the engine is told of it."""
    return {
        "Type": "bind",  # unlike the short form it refuses a missing source instead of making a folder of root's
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _tmpfs(user: str) -> str:
    uid, gid = user.split(":")
    return f"rw,exec,nosuid,nodev,mode=0700,uid={uid},gid={gid}"
