"""What a hostile command finds inside a container behind a gate: no way out, nothing of the gate, no privilege."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from moat.runtimes.canary import host_addresses
from support.docker_place import SUPPORT, docker_place, is_there
from support.installation import USER

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not is_there(), reason="no container engine with the image"),
]
NO_CAPABILITY = "0000000000000000"


@dataclass(frozen=True)
class Found:
    """What probe.py told from inside, and who came to the host's listeners meanwhile."""

    facts: dict[str, Any]
    visitors: int
    user: str

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


@pytest.fixture(scope="module", params=["", USER], ids=["root", USER])
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    with docker_place(request.param) as place, contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(_listener(family, address)) for family, address in host_addresses()]
        name = f"moat-test-{secrets.token_hex(8)}"
        listeners.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
        listeners[-1].bind(f"\0{name}")
        listeners[-1].listen()
        targets = {"tcp": [list(one.getsockname()[:2]) for one in listeners[:-1]], "abstract": name}
        program = place.workspace / "probe.py"
        program.write_text((SUPPORT / "probe.py").read_text())

        done = place.run("python3", "/workspace/probe.py", json.dumps(targets))

        assert done.returncode == 0, done.stderr.decode()
        yield Found(json.loads(done.stdout), sum(map(_visitors, listeners)), request.param)


def test_there_is_no_interface_but_lo_and_no_route(found: Found) -> None:
    assert found["interfaces"] == ["lo"]
    assert found["routes"] == []


def test_nothing_outside_can_be_reached(found: Found) -> None:
    assert {name: what for name, what in found["ways_out"].items() if what == "done" and "127." not in name} == {}
    assert found.visitors == 0


def test_no_port_of_the_door_can_be_bound(found: Found) -> None:
    assert set(found["thefts"].values()) == {"EADDRINUSE"}


def test_system_calls_around_the_network_are_refused(found: Found) -> None:
    calls = dict(found["calls"])

    assert calls.pop("clone3") == "ENOSYS"
    assert set(calls.values()) == {"EPERM"}, calls


def test_there_is_no_capability_and_no_way_to_one(found: Found) -> None:
    status = found["status"]

    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {NO_CAPABILITY}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert found["set an interface"] == "EPERM"


def test_names_and_addresses_are_ours_and_cannot_be_changed(found: Found) -> None:
    assert found["hosts"] == "127.0.0.1 localhost moat\n::1 localhost\n"
    assert found["resolver"].startswith("nameserver 127.0.0.1\n")
    assert found["hostname"] == "moat"
    refused = {found["writes"][path] for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")}
    assert refused == {"EACCES" if found.user else "EROFS"}


def test_the_kernels_settings_cannot_be_changed(found: Found) -> None:
    refused = {path: what for path, what in found["writes"].items() if path.startswith("/proc")}

    assert all(what in ("EROFS", "EACCES", "EPERM", "ENOENT") for what in refused.values()), refused


def test_only_root_may_change_the_images_own_files(found: Found) -> None:
    assert found["writes"]["/etc/moat-was-here"] == ("EACCES" if found.user else "done")


def test_the_gate_cannot_be_seen(found: Found) -> None:
    assert not any("gate.py" in command for command in found["commands"])
    assert "/doors/" not in found["mounts"]


def test_there_is_no_socket_of_the_hosts(found: Found) -> None:
    assert found["sockets"] == []
    # The daemon's end of the gate's own connection is listed by the path that nobody inside can open.
    assert [path for path in found["abstract"] if not path.endswith("/door.sock")] == []


def test_the_environment_holds_no_token(found: Found) -> None:
    assert "@" not in found["environment"]["http_proxy"]
    assert "s3cr3t" not in json.dumps(found["environment"])


def test_lookups_that_ask_for_a_configured_address_family_work(found: Found) -> None:
    assert found["addrconfig"] is True


def _listener(family: int, address: tuple[str, int]) -> socket.socket:
    host, scope = address
    sock = socket.socket(family)
    sock.bind((host, 0, 0, scope) if family == socket.AF_INET6 else (host, 0))
    sock.listen()
    return sock


def _visitors(listener: socket.socket) -> int:
    listener.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count
