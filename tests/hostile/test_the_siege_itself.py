"""The mirror of test_no_way_out: without a sandbox the same program gets everywhere, so its failures mean something."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.world import HOST_ADDRESSES, World, in_network_of

from hostile.lures import Lures, host_memory, lures
from hostile.sandbox import INSIDE

KEY = 0x6D6F6175
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from hostile.inside import names, network, secrets, sockets
targets = json.loads(sys.argv[2])
network.PORTS = (53, 443)
report = network.everything(targets) | names.everything(targets["names"], ["9.9.9.9"])
report |= sockets.everything(targets["unix"], "/none", targets["queue"])
report |= secrets.everything(targets["marks"], 1e18, "/")
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def free(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lures, dict[str, dict[str, str]]]]:
    """Run the harmless half of the program on the host of a world, without any sandbox."""
    folder = tmp_path_factory.mktemp("free")
    shutil.copytree(INSIDE, folder / "hostile" / "inside")
    with lures([folder], lambda work: in_network_of(world.host_pid, work), "free") as lure, host_memory(KEY):
        world.internet.forget()
        targets = lure.targets(["127.0.0.1", "::1", *HOST_ADDRESSES]) | {
            "names": ["secret.evil.test"], "unix": lure.paths, "queue": KEY, "marks": ["drow-terces"],
        }  # fmt: skip
        argv = [*world.through, "python3", "-c", PROGRAM, str(folder), json.dumps(targets)]
        done = subprocess.run(argv, capture_output=True, text=True, env=_environment(folder), check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        yield lure, json.loads(done.stdout)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(folder), "PLACE": "secret-word"}


def test_it_reaches_every_lure_of_an_ordinary_host(free: tuple[Lures, dict[str, dict[str, str]]]) -> None:
    lure, _ = free

    assert {"tcp", "tcp6", "udp", "udp6"} <= set(lure.touched)
    assert {repr(path) for path in lure.paths} <= set(lure.touched)


def test_its_packets_are_seen(free: tuple[Lures, dict[str, dict[str, str]]], world: World) -> None:
    seen = {(packet.protocol, packet.destination) for packet in world.internet.packets}

    assert {(6, "1.1.1.1"), (17, "8.8.8.8"), (6, "2606:4700:4700::1111"), (6, "169.254.169.254")} <= seen


def test_its_names_are_heard(free: tuple[Lures, dict[str, dict[str, str]]], world: World) -> None:
    _, report = free

    assert "secret.evil.test" in world.internet.queries
    assert report["other_resolvers"]["udp 9.9.9.9"].startswith("done")


def test_it_finds_shared_memory_sockets_and_secrets(free: tuple[Lures, dict[str, dict[str, str]]]) -> None:
    _, report = free

    assert report["system_v"]["message queue"].startswith("done")
    assert report["posix"]["shared memory"].startswith("done")
    assert "environment PLACE mark 0" in report["secrets"]
    assert "moat-free" in report["abstract"]["names"]
