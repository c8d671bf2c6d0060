"""What a launch with services asks of the engine and undoes. With real servers: tests/integration/test_services.py."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from moat.api.container import Limits
from moat.api.errors import RuntimeUnavailable, SandboxFailed
from moat.api.runtimes import DoorTicket
from moat.api.services import Sidecar
from moat.runtimes import docker_services as module
from moat.runtimes.docker_engine import session
from moat.runtimes.docker_services import Services, is_listening
from support.fake_engine import Answer, fake_engine

RUN_ID = "run_0123456789ab"
DB = Sidecar("db", "postgres:17", 5432, {"A": "s3cr3t"}, ready=("ready?",), secrets=("s3cr3t",))
NAME = f"moat-{RUN_ID}-service-db"
RUNNING: dict[str, Answer] = {
    "GET images/postgres:17/json": (200, {"Id": "sha256:0"}),
    "POST containers/create": (201, {"Id": "c1"}),
    "POST containers/c1/start": (204, None),
    "GET containers/c1/json": (200, {"Id": "c1", "State": {"Running": True}, "Config": {"Tty": False}}),
    f"DELETE containers/{NAME}": (204, None),
}
TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:1538 01 00000000:00000000 00:00000000 00000000   999        0 2 1 0 100 0 0 10 0
   0: 00000000000000000000000000000000:1A0A 00000000000000000000000000000000:0000 0A 0:0 00:0 0 999 0 3 1 0
"""


def test_listeners_are_found_in_the_kernels_tables() -> None:
    assert is_listening(TABLE, 0x1538)
    assert is_listening(TABLE, 0x1A0A)
    assert not is_listening(TABLE, 0x1F90)  # somebody's connection
    assert not is_listening("cat: nonsense\n", 1)


async def attempt(services: tuple[Sidecar, ...], ticket: DoorTicket) -> None:
    async with contextlib.AsyncExitStack() as undo, session() as docker:
        made = Services(docker, services, Limits(), {"moat.run": RUN_ID}, undo)
        await made.check(ticket)
        try:
            await made.start(ticket, "container:gate")
        finally:
            await undo.aclose()


def a_ticket(told: list[str], *places: tuple[str, str, str, int]) -> DoorTicket:
    return DoorTicket(RUN_ID, Path("/doors/x"), "n0nce", places=places, told=told.append)


async def test_an_image_that_is_gone_and_a_port_of_the_gates_are_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        with pytest.raises(RuntimeUnavailable, match="docker has no image postgres:17"):
            await attempt((DB,), a_ticket([]))
        with pytest.raises(SandboxFailed, match="db wants port 5432, where an endpoint"):
            await attempt((DB,), a_ticket([], ("tcp:5432", "tcp", "0.0.0.0", 5432)))  # of the run's own

    assert not any(call.startswith("POST") for call in engine.calls)


async def test_a_service_that_ends_is_told_with_what_it_said_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"State": {"Running": False, "ExitCode": 3}, "Config": {"Tty": False}}
    ended = {**RUNNING, "GET containers/c1/json": (200, {"Id": "c1", **state})}
    async with fake_engine(tmp_path, monkeypatch, ended) as engine:
        with pytest.raises(SandboxFailed, match=r"the service db ended before it was ready \(exit 3\)") as caught:
            await attempt((DB,), a_ticket([]))

    assert caught.value.problem.endswith("and said nothing")
    assert caught.value.hint == "look at its image, postgres:17"
    assert engine.calls[-1] == f"DELETE containers/{NAME}"
    assert b"s3cr3t" in engine.bodies["POST containers/create"]  # and nowhere else
    assert engine.queries["POST containers/create"]["name"] == NAME


async def test_a_service_that_takes_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_S", 0.5)
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    told: list[str] = []
    async with fake_engine(tmp_path, monkeypatch, RUNNING) as engine:
        with pytest.raises(SandboxFailed, match="db was not ready after"):
            await attempt((DB,), a_ticket(told))

    assert told[0] == "still waiting for db: it says nothing"
    assert f"DELETE containers/{NAME}" in engine.calls


async def test_a_look_that_hangs_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        async def exec(self, argv: tuple[str, ...]) -> None:
            await asyncio.Event().wait()

        async def show(self) -> dict[str, object]:
            return {"State": {"Running": True}}

        async def log(self, **_: object) -> list[str]:
            return ["still s3cr3t at it\n"]

    containers = SimpleNamespace(container=lambda _: Hanging())
    docker = SimpleNamespace(containers=containers, title="docker", look="run: docker info")
    for name, limit_s in (("ASK_S", 0.05), ("PATIENCE_S", 0.05), ("READY_S", 0.5)):
        monkeypatch.setattr(module, name, limit_s)
    told: list[str] = []

    with pytest.raises(SandboxFailed, match="db was not ready after") as caught:
        await module._Started(docker, DB, told.append).until_ready()  # type: ignore[arg-type] # as much as is asked

    assert told[0] == "still waiting for db: still (generated) at it"
    assert caught.value.problem.endswith(":\n  still (generated) at it")
