"""The fallback without a door: which proxy a run gets, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec
from moat.runtimes import internal
from moat.runtimes.docker_engine import session
from support.fake_engine import Answer, fake_engine

RUN_ID = "run_0123456789ab"
TOKEN = "t0ken-s3cr3t"
ENV = {"HTTPS_PROXY": "http://127.0.0.1:19080", "NO_PROXY": "localhost,127.0.0.1", "X": "1"}


def a_spec() -> SandboxSpec:
    return SandboxSpec(RUN_ID, "calm-otter", ("true",), ENV, (), "/workspace", "/home/moat", image="debian")


class Listening:
    """Stands in for the daemon: remembers where it was asked to listen."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def listen(self, address: str) -> str:
        self.addresses.append(address)
        return f"http://moat:{TOKEN}@{address}:4000"

    def ticket(self, folder: Path) -> DoorTicket:
        return DoorTicket(RUN_ID, folder, "", listen=self.listen)


def a_network(gateway: str) -> dict[str, Answer]:
    facts = {"Id": "n1", "IPAM": {"Config": [{"Subnet": "10.9.0.0/16", "Gateway": gateway}] if gateway else None}}
    return {"POST networks/create": (201, {"Id": "n1"}), "GET networks/n1": (200, facts)}


async def test_the_daemon_listens_on_the_networks_gateway_where_it_is_this_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Listening()
    async with fake_engine(tmp_path, monkeypatch, a_network("127.0.0.1")), session() as docker:
        spec = await internal.prepare(docker, a_spec(), daemon.ticket(tmp_path), {})

    assert daemon.addresses == ["127.0.0.1"]
    assert spec.env == {**ENV, "HTTPS_PROXY": f"http://moat:{TOKEN}@127.0.0.1:4000"}


@pytest.mark.parametrize("gateway", ["192.0.2.77", ""], ids=["of another machine", "not told"])
async def test_an_engine_in_a_machine_of_its_own_forwards_to_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: str
) -> None:
    daemon = Listening()
    async with fake_engine(tmp_path, monkeypatch, a_network(gateway)), session() as docker:
        spec = await internal.prepare(docker, a_spec(), daemon.ticket(tmp_path), {})

    assert daemon.addresses == ["127.0.0.1"]
    assert spec.env["HTTPS_PROXY"] == f"http://moat:{TOKEN}@host.docker.internal:4000"


async def test_the_network_is_internal_and_bears_the_runs_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, a_network("127.0.0.1")) as engine, session() as docker:
        await internal.prepare(docker, a_spec(), Listening().ticket(tmp_path), {"moat.run": RUN_ID})

    asked = json.loads(engine.bodies["POST networks/create"])
    assert (asked["Internal"], asked["Name"], asked["Labels"]) == (True, f"moat-{RUN_ID}", {"moat.run": RUN_ID})


async def test_without_a_listener_there_is_no_run_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}) as engine, session() as docker:
        with pytest.raises(SandboxFailed, match="door does not reach") as caught:
            await internal.prepare(docker, a_spec(), DoorTicket(RUN_ID, tmp_path, ""), {})

    assert "--runtime bubblewrap" in caught.value.hint
    assert engine.calls == []


def test_the_container_finds_the_host_by_name_and_nobody_else() -> None:
    config: Any = internal.adapted({"Image": "debian", "HostConfig": {"CapDrop": ["ALL"]}})

    assert config["HostConfig"] == {
        "CapDrop": ["ALL"],
        "Dns": ["127.0.0.1"],
        "ExtraHosts": ["host.docker.internal:host-gateway"],
    }


async def test_a_network_that_is_gone_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, monkeypatch, {}), session() as docker:
        await internal.remove(docker, internal.network_name(RUN_ID))
