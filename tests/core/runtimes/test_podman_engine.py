"""Where podman's service is found, and what it is told differently. With a real one: tests/contract."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiodocker
import pytest
from moat.api.errors import SandboxFailed
from moat.paths import Home, private_folder
from moat.runtimes import podman_engine
from moat.runtimes.docker_config import RUN_LABEL
from moat.runtimes.docker_ready import has_image, readiness, user_of
from moat.runtimes.podman_engine import PodmanEngine, find_service, start_it
from support.fake_engine import FakeEngine, fake_engine

RUN_ID = "run_0123456789ab"
CONFIG: dict[str, Any] = {
    "Image": "debian",
    "Env": ["X=1", "TINI_KILL_PROCESS_GROUP=1"],
    "Labels": {RUN_LABEL: RUN_ID},
    "Healthcheck": {"Test": ["NONE"]},
    "HostConfig": {
        "SecurityOpt": ["no-new-privileges:true", 'seccomp={"defaultAction": "SCMP_ACT_ERRNO"}'],
        "Tmpfs": {"/home/moat": "rw,mode=0700,uid=1001,gid=1001"},
    },
}


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONTAINER_HOST", "DOCKER_HOST", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(podman_engine, "SYSTEM_SOCKET", tmp_path / "system.sock")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))
    home = Home(tmp_path / "moat")
    private_folder(home.inside(RUN_ID))
    return home


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        yield


@contextlib.asynccontextmanager
async def a_service(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, object]], server: str = "Libpod/4.3.1"
) -> AsyncIterator[FakeEngine]:
    async with fake_engine(folder, monkeypatch, {"GET _ping": (200, "OK"), **answers}) as engine:
        monkeypatch.setenv("CONTAINER_HOST", f"unix://{folder}/engine.sock")
        engine.server = f"{server} (linux)"
        yield engine


@contextlib.asynccontextmanager
async def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PodmanEngine]:
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/absent.sock")
    docker = PodmanEngine.open()
    try:
        yield docker
    finally:
        await docker.close()


def test_a_service_that_is_named_is_taken_before_any_socket(tmp_path: Path) -> None:
    with listening(tmp_path / "system.sock"):
        named = {"CONTAINER_HOST": "tcp://far:8080", "DOCKER_HOST": "unix:///run/podman/podman.sock"}

        assert find_service(named) == "tcp://far:8080"
        assert find_service({"DOCKER_HOST": named["DOCKER_HOST"]}) == named["DOCKER_HOST"]
        assert find_service({"DOCKER_HOST": "unix:///run/docker.sock"}) == f"unix://{tmp_path}/system.sock"


@pytest.mark.parametrize(("uid", "found"), [(1001, "podman/podman.sock"), (0, "system.sock")])
def test_a_user_has_a_service_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, found: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    with listening(tmp_path / "system.sock"), listening(tmp_path / "podman" / "podman.sock"):
        assert find_service({"XDG_RUNTIME_DIR": str(tmp_path)}) == f"unix://{tmp_path}/{found}"


@pytest.mark.parametrize(
    ("has_program", "has_systemd", "uid", "hint"),
    [
        (False, True, 1001, "install podman"),
        (True, False, 1001, "run: podman system service --time 0 &"),
        (True, True, 1001, "run: systemctl --user enable --now podman.socket"),
        (True, True, 0, "run: systemctl enable --now podman.socket"),
    ],
)
async def test_without_a_service_the_next_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_program: bool, has_systemd: bool, uid: int, hint: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/podman" if has_program else None)
    monkeypatch.setattr(podman_engine, "SYSTEMD", tmp_path if has_systemd else tmp_path / "absent")
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))

    found = await readiness("debian", PodmanEngine)

    assert not found.is_ready
    assert found.hint.startswith(hint)
    assert ("not running" in found.detail) == has_program


async def test_a_socket_that_nobody_listens_at_is_told_with_what_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path / "system.sock"):  # bound, and nobody waits there
        found = await readiness("debian", PodmanEngine)
        monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/absent.sock")
        named = await readiness("debian", PodmanEngine)

    assert "podman could not answer: Cannot connect to podman's service via unix://" in found.detail
    assert found.hint == start_it()
    assert named.hint.endswith("unset CONTAINER_HOST")


@pytest.mark.parametrize("address", ["somewhere", "ssh://me@somewhere"])
async def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("CONTAINER_HOST", address)

    with pytest.raises(SandboxFailed, match="somewhere cannot be used") as caught:
        PodmanEngine.open()

    assert caught.value.hint.startswith("export CONTAINER_HOST=unix://")


async def test_readiness_asks_for_nothing_that_takes_podman_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_service(tmp_path, monkeypatch, {"GET images/debian/json": (200, {"Id": "sha256:0"})}) as engine:
        found = await readiness("debian", PodmanEngine)

    assert (found.is_ready, found.detail) == (True, "podman 4.3.1")
    assert engine.calls == ["GET _ping", "GET images/debian/json"]


async def test_docker_in_podmans_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_service(tmp_path, monkeypatch, {}, server="Docker/20.10.24"):
        found = await readiness("debian", PodmanEngine)

    assert (found.is_ready, found.hint) == (False, "use --runtime docker")


async def test_an_image_that_is_absent_is_podmans_to_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_service(tmp_path, monkeypatch, {}):
        found = await readiness("debian", PodmanEngine)

    assert (found.detail, found.hint) == ("podman has no image debian", "run: podman pull debian")


async def test_an_image_made_here_is_found_by_its_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    facts = {"Id": "sha256:0", "Config": {"Healthcheck": {"Test": ["CMD", "look"]}}}
    async with a_service(tmp_path, monkeypatch, {"GET images/localhost/mine/json": (200, facts)}):
        docker = PodmanEngine.open()
        assert await has_image(docker, "mine")
        told: Any = docker.container({**CONFIG, "Image": "mine"})
        await docker.close()

    assert told["Image"] == "localhost/mine"
    assert told["Healthcheck"] == {"Test": ["NONE"]}


async def test_a_container_is_configured_in_podmans_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    async with nobody(tmp_path, monkeypatch) as docker:
        told: Any = docker.container(CONFIG)

    profile = home.inside(RUN_ID) / "seccomp.json"
    assert profile.read_text() == '{"defaultAction": "SCMP_ACT_ERRNO"}'
    assert told["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={profile}", "label=disable"]
    assert told["HostConfig"]["Tmpfs"] == {"/home/moat": "rw,mode=0777,notmpcopyup"}
    assert told["Env"] == ["X=1"]
    assert "Healthcheck" not in told


async def test_a_run_with_a_network_sees_no_name_of_this_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    own = {"Target": "/etc/hosts", "Source": "/mine"}
    async with nobody(tmp_path, monkeypatch) as docker:
        for mounts, source in (([], str(podman_engine.HOSTS.source)), ([own], "/mine")):
            host: Any = {"ExtraHosts": ["host.docker.internal:host-gateway"], "Mounts": mounts}
            told: Any = docker.container({**CONFIG, "HostConfig": host})
            shown = {mount["Target"]: mount["Source"] for mount in told["HostConfig"]["Mounts"]}
            assert ("ExtraHosts" in told["HostConfig"], shown) == (False, {"/etc/hosts": source})


@pytest.mark.parametrize(("kernel", "owner"), [("of another machine", 0), ("", 1001)])
async def test_without_a_door_podman_must_be_roots_and_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, owner: int
) -> None:
    monkeypatch.setattr(podman_engine, "_owner", lambda _: owner)
    version = {"ApiVersion": "1.41", "KernelVersion": kernel or os.uname().release}
    async with a_service(tmp_path, monkeypatch, {"GET version": (200, version)}) as engine:
        docker = PodmanEngine.open()
        with pytest.raises(SandboxFailed, match="no proxy can be reached from podman") as caught:
            async with docker.with_gateway("n", {RUN_LABEL: RUN_ID}):
                pass
        await docker.close()

    assert "--runtime docker" in caught.value.hint
    assert not any(call.startswith("POST") for call in engine.calls)


async def test_an_images_configuration_is_told_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"User": "5:6", "Entrypoint": [], "Cmd": ["sh", "-c", "a b"], "Labels": {"moat.run": "", "x": 'of "$Y" z'}}
    async with nobody(tmp_path, monkeypatch) as docker:
        lines = docker.changes(config).split("\n")

    assert lines[:4] == ["USER 5:6", "WORKDIR /", "ENTRYPOINT []", 'CMD ["sh", "-c", "a b"]']
    assert lines[4:] == ['LABEL moat.run=""', r'LABEL x="of \"\$Y\" z"']


async def test_roots_folders_stay_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    of_root = {"HostConfig": {"Tmpfs": {"/home/moat": "rw,mode=0700,uid=0,gid=0"}}}
    async with nobody(tmp_path, monkeypatch) as docker:
        told: Any = docker.container({**CONFIG, **of_root})

    assert told["HostConfig"]["Tmpfs"] == {"/home/moat": "rw,mode=0700,notmpcopyup"}


async def test_a_service_of_a_user_is_rootless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1001)
    monkeypatch.setattr("os.getegid", lambda: 1002)
    async with a_service(tmp_path, monkeypatch, {}) as engine:
        for owner, user in ((0, "1001:1002"), (1001, "0:0")):
            monkeypatch.setattr(podman_engine, "_owner", lambda _, uid=owner: uid)
            docker = PodmanEngine.open()
            assert await user_of(docker) == user
            await docker.close()

    assert engine.calls == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"ERROR (catatonit:6): failed to exec pid1: No such file or directory\n", (127, "No such file or directory")),
        (b"ERROR (catatonit:6): failed to exec pid1: Permission denied\n", (126, "Permission denied")),
        (b"hello\nERROR (catatonit:6): failed to exec pid1: No such file or directory\n", None),
    ],
)
async def test_what_its_init_could_not_start_ends_as_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, meant: tuple[int, str] | None
) -> None:
    async with nobody(tmp_path, monkeypatch) as docker:
        assert docker.absence(said) == meant


@pytest.mark.parametrize(
    ("status", "message", "is_ending"),
    [(409, "", True), (500, "container state improper: stopped", True), (500, "disk on fire", False)],
)
async def test_a_container_that_ends_by_itself_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str, is_ending: bool
) -> None:
    async with nobody(tmp_path, monkeypatch) as docker:
        assert docker.is_ending(aiodocker.DockerError(status, message)) is is_ending


async def test_of_a_command_that_has_ended_its_exit_code_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nobody(tmp_path, monkeypatch) as docker:
        assert docker.has_begun({"Pid": 7, "ExitCode": 0})
        assert docker.has_begun({"Pid": 0, "ExitCode": 5})
        assert not docker.has_begun({"Pid": 0, "ExitCode": 127})
        assert docker.is_complaint(b"Error: crun: executable file `x` not found: OCI runtime attempted to invoke")
        assert not docker.is_complaint(b"sh: 1: x: not found")


@pytest.mark.parametrize(
    ("complaint", "remedy"),
    [
        ("container-init binary not found on the host: stat /usr/libexec/podman/catatonit", "install catatonit"),
        ("opening seccomp profile failed: open /x: no such file", "have MOAT_HOME in a folder that podman's"),
        ("something else", "run: moat doctor"),
    ],
)
async def test_what_podman_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str, remedy: str
) -> None:
    async with nobody(tmp_path, monkeypatch) as docker:
        assert docker.remedy(complaint).startswith(remedy)
        assert docker.tag("localhost/moat-x:1") == docker.tag("docker.io/library/moat-x:1") == "moat-x:1"
        assert docker.tag("quay.io/a/b:1") == "quay.io/a/b:1"


async def test_a_signal_goes_through_the_service_where_the_command_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, tuple[int, object]] = {
        "POST containers/c/kill": (204, None),
        "GET containers/c/json": (200, {"State": {"Pid": os.getpid()}}),  # which is not the container's
    }
    async with a_service(tmp_path, monkeypatch, answers) as engine:
        docker = PodmanEngine.open()
        async with asyncio.timeout(30):
            await docker.signal("c", 2, is_here=False)
            await docker.signal("c", 2, is_here=True)
        await docker.close()

    assert engine.calls.count("POST containers/c/kill") == 2
    assert engine.queries["POST containers/c/kill"] == {"signal": "2"}
