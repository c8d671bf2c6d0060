"""A launch undoes what it did, whatever stops it. With a real engine: tests/integration/test_sealed_docker.py."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import MoatError, RuntimeUnavailable, SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec, Stdio
from moat.api.services import Sidecar
from moat.paths import Home, private_folder
from moat.runtimes import docker_launch as module
from moat.runtimes import docker_stdio
from moat.runtimes.docker_engine import STDOUT, session
from moat.runtimes.docker_gate import empty_image
from moat.runtimes.docker_launch import DockerSandbox, launch
from support.fake_engine import VERSION, Answer, FakeEngine, fake_engine

RUN_ID = "run_0123456789ab"
Places = tuple[tuple[str, str, str, int], ...]
GATE, AGENT = f"moat-{RUN_ID}-gate", f"moat-{RUN_ID}"
READY: dict[str, Answer] = {
    "GET images/debian/json": (200, {"Id": "sha256:0"}),
    f"GET images/{empty_image()[0]}/json": (200, {"Id": "sha256:1"}),
    "GET info": (200, {"SecurityOptions": ["name=seccomp,profile=default"]}),
    "GET version": (200, {**VERSION, "KernelVersion": os.uname().release}),
    "POST networks/create": (201, {"Id": "n1"}),
    "GET networks/n1": (200, {"Id": "n1", "IPAM": {"Config": [{"Gateway": "127.0.0.1"}]}}),
    f"GET networks/{AGENT}": (200, {"Id": "n1"}),
    "DELETE networks/n1": (204, None),
    "POST containers/create": (201, {"Id": "c1"}),
    f"DELETE containers/{GATE}": (204, None),
    f"DELETE containers/{AGENT}": (204, None),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "m"))
    private_folder(Home(tmp_path / "m").inside(RUN_ID))
    (tmp_path / "work").mkdir()
    return Home(tmp_path / "m")


async def attempt(
    home: Home, *mounts: Mount, has_door: bool = True, places: Places = (), services: tuple[Sidecar, ...] = ()
) -> None:
    async def created(container_id: str) -> None:
        raise AssertionError(container_id)

    async def listen(address: str) -> str:
        return f"http://moat:t0ken-s3cr3t@{address}:1"

    work = Mount(home.root.parent / "work", "/workspace")
    spec = SandboxSpec(
        RUN_ID, "x", ("true",), {}, (work, *mounts), "/workspace", "/home/moat", image="debian", services=services
    )
    ticket = DoorTicket(RUN_ID, home.door(RUN_ID), "n0nce", listen=listen, places=places)
    await launch(spec, ticket, Stdio(0, 1, 2), created, has_door=has_door)


def removed(engine: FakeEngine) -> list[str]:
    return [call.removeprefix("DELETE ") for call in engine.calls if call.startswith("DELETE")]


async def test_a_mount_that_must_not_be_is_refused_before_the_engine_is_asked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, READY) as engine:
        with pytest.raises(SandboxFailed, match="moat's own folder"):
            await attempt(home, Mount(home.root, "/data"))

    assert engine.calls == []


async def test_a_missing_image_is_named_and_nothing_is_made(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        with pytest.raises(RuntimeUnavailable) as caught:
            await attempt(home)

    assert caught.value.hint == "run: docker pull debian"
    assert not any(call.startswith("POST") for call in engine.calls)


async def test_a_gate_that_cannot_be_attached_to_is_removed_and_so_is_what_was_made_meanwhile(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, READY) as engine:
        with pytest.raises(SandboxFailed, match="could not attach"):
            await attempt(home)

    assert engine.calls.count("POST containers/create") == 2
    assert removed(engine) == [f"containers/{AGENT}", f"containers/{GATE}"]
    assert "POST containers/c1/start" not in engine.calls


async def test_a_container_that_shows_sockets_of_the_gate_is_not_made_before_they_are(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, READY) as engine:
        with pytest.raises(SandboxFailed, match="could not attach"):  # to the gate
            await attempt(home, places=(("unix:/run/x.sock", "unix", "x.sock", 0),))

    assert engine.calls.count("POST containers/create") == 1
    assert removed(engine) == [f"containers/{GATE}"]


async def test_what_the_fallback_made_is_removed_with_its_network_last(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, READY) as engine:
        with pytest.raises(SandboxFailed, match="could not attach"):
            await attempt(home, has_door=False)

    assert removed(engine) == [f"containers/{AGENT}", "networks/n1"]


async def test_a_gate_that_cannot_run_elsewhere_leads_to_the_fallback(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {**READY, "GET version": (200, {**VERSION, "KernelVersion": "5.0-of-another-machine"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine:
        with pytest.raises(MoatError, match="could not attach"):
            await attempt(home)

    beside_the_gate = [f"containers/{AGENT}", f"containers/{GATE}"]
    assert removed(engine) == [*beside_the_gate, f"containers/{AGENT}", "networks/n1"]


async def test_services_do_not_follow_to_an_engine_that_is_elsewhere(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {**READY, "GET version": (200, {**VERSION, "KernelVersion": "5.0-of-another-machine"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine:
        with pytest.raises(MoatError, match="services need an engine on this machine: "):
            await attempt(home, services=(Sidecar("db", "postgres:17", 5432),))

    assert removed(engine) == [f"containers/{AGENT}", f"containers/{GATE}"]


async def test_a_cancelled_launch_waits_for_what_is_being_made_and_removes_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, READY) as engine, asyncio.TaskGroup() as group:
        task = group.create_task(attempt(home))
        await engine.asked("POST containers/create")
        task.cancel()

    assert task.cancelled()
    assert removed(engine) == [f"containers/{GATE}"]


@pytest.mark.parametrize("status", [204, 404, 409], ids=["running", "gone", "ended"])
async def test_signals_to_a_command_that_has_ended_are_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers: dict[str, Answer] = {
        "POST containers/c1/kill": (status, {"message": "no"}),
        "POST containers/c1/resize": (status, {"message": "no"}),
    }
    async with fake_engine(tmp_path, monkeypatch, answers) as engine, session() as docker:
        from moat.runtimes.docker_engine import Attachment

        sandbox = DockerSandbox(docker, "c1", Attachment(docker, "c1"), Stdio(0, 1, 2))
        await sandbox.signal(15)
        await sandbox.resize(33, 44)
        await sandbox.close()
        await sandbox.close()

    assert engine.queries["POST containers/c1/kill"] == {"signal": "15"}
    assert engine.queries["POST containers/c1/resize"] == {"h": "33", "w": "44"}


async def test_a_killed_command_ends_although_nobody_takes_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        beginning, closed = b"", False

        async def read(self) -> tuple[int, bytes]:
            await asyncio.sleep(0)
            return STDOUT, b"y" * 65_536

        def end_input(self) -> None:
            pass

        async def close(self) -> None:
            self.closed = True

    answers: dict[str, Answer] = {
        "POST containers/c1/kill": (204, None),
        "POST containers/c1/wait": (200, {"StatusCode": 137}),
    }
    monkeypatch.setattr(docker_stdio, "DRAIN_S", 0.0)
    reading, writing = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    async with fake_engine(tmp_path, monkeypatch, answers), session() as docker:
        output = Endless()
        sandbox = DockerSandbox(docker, "c1", output, Stdio(nothing, writing, writing))  # type: ignore[arg-type] # as one
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            waiting = group.create_task(sandbox.wait())
            while not select.select([reading], [], [], 0)[0]:  # noqa: ASYNC110 # a pipe of ours tells nobody
                await asyncio.sleep(0.01)
            await sandbox.signal(signal.SIGTERM)
            assert not waiting.done()
            await sandbox.signal(signal.SIGKILL)

    assert (waiting.result(), output.closed) == (137, True)
    for number in (reading, writing, nothing):
        os.close(number)


async def test_gate_and_command_are_removed_at_once_and_what_the_engine_refuses_is_left_to_the_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, seen = asyncio.Event(), list[str]()

    async def remove(docker: object, name: str) -> None:
        seen.append(name)
        if len(seen) == 2:
            both.set()
        async with asyncio.timeout(30):
            await both.wait()  # each waits for the other: one after the other would never end
        raise SandboxFailed("no", hint="none")

    monkeypatch.setattr(module, "remove", remove)
    async with fake_engine(tmp_path, monkeypatch, {}), session() as docker:
        from moat.runtimes.docker_engine import Attachment

        sandbox = DockerSandbox(docker, "c1", Attachment(docker, "c1"), Stdio(0, 1, 2))
        sandbox.names = (AGENT, GATE)
        sandbox.undo.callback(seen.append, "the undo")
        await sandbox.close()

    assert seen == [AGENT, GATE, "the undo"]
