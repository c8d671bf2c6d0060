"""A hostile program tries every way out of every kind of sandbox; the listeners outside, and its own report, tell."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.installation import Installation
from support.podman_place import WITH_PODMAN
from support.world import HOST_ADDRESSES, World, in_network_of

from hostile.lures import Lures, host_memory, lures
from hostile.sandbox import PLACES, Place, live_run, with_programs

SECRET = "s3cr3t-of-the-hostile-tests"
QUEUE = 0x6D6F6174
DOOR = [19080, 80, 443, 53]
NAMES = ["denied.example.net", "czNjcjN0LWRhdGE.evil.test", "api.example.com.evil.test", "sub.api.example.com",
         f"{'a' * 60}.{'b' * 60}.evil.test", "evil.test", "localhost.evil.test", "docker",
         "host.docker.internal"]  # fmt: skip
RESOLVERS = ["9.9.9.9", "8.8.8.8", "198.51.100.1", "198.51.100.2", "127.0.0.2", "127.0.0.11", "127.0.0.53", "fd77::1"]
REAL_HOST = ["127.0.0.1", "127.0.0.2", "172.17.0.1", "::1", "::ffff:127.0.0.1"]
FALLBACK_TUNNELS = {"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
REFUSED = {"EPERM", "ENOSYS", "EACCES", "died of signal 31"}
LOOPBACK = ("('127.", "('::1", "('::ffff:127.", "ping 127.", "ping ::1", "ping ::ffff:127.")

IDLE = "sleep 5600"  # the command of a run that another one is brought into: not beyond its reach, and no way out
BY_EXEC = Place("docker", by_exec=True)
MORE = (pytest.param(BY_EXEC, marks=pytest.mark.docker), pytest.param(Place("podman"), marks=WITH_PODMAN))
Report = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Siege:
    """What the program reported, and what stood outside."""

    report: Report
    outside: tuple[Lures, ...]
    world: World

    def gained(self, group: str) -> dict[str, str]:
        """Return the attempts of a group that got somewhere."""
        return {name: outcome for name, outcome in self.report[group].items() if outcome.startswith("done")}


@pytest.fixture(params=[*PLACES, *MORE], ids=str, scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of sandbox in turn, and one that a command is brought into later."""
    assert isinstance(request.param, Place)
    return request.param


@pytest.fixture(scope="module")
def siege(place: Place, world: World) -> Iterator[Siege]:
    """Run the program once in a place, with lures on its host and on the real one, beside another run."""
    folders = [Path("/tmp"), Path("/run")]
    own, hosts = _start_here, _start_in(world)
    with (
        lures(folders, own, "real") as real,
        lures([], hosts, "host") as host,
        host_memory(QUEUE),
        world.installation(place.user) as made,
    ):
        made.ok("proxy", "start")
        since = time.time()
        made.grant("github", SECRET)
        with live_run(made, place, name="neighbour") as neighbour:
            neighbour.ask(do="bind", names=["\0moat-neighbour", "/tmp/neighbour"])
            world.internet.forget()
            targets = _targets(made, real, host, since)
            yield Siege(_attack(made, place, targets), (real, host), world)


def _attack(made: Installation, place: Place, targets: dict[str, object]) -> Report:
    workspace = with_programs(made)
    made.file("work/targets.json", json.dumps(targets))
    options = ("--runtime", place.runtime, "--grant", "github", "--policy", "strict", "--allow-host", "api.example.com")
    program = ("python3", "/workspace/hostile/inside/main.py", "/workspace/targets.json")
    if place.by_exec:
        made.ok("run", "-d", workspace, *options, "--name", "besieged", "--", *IDLE.split())
        said = made.ok("exec", "besieged", "--", *program, timeout_s=110)
        made.ok("stop", "-t", "0", "besieged")
    else:
        said = made.ok("run", workspace, *options, "--", *program, timeout_s=110)
    report: Report = json.loads(said)
    return report


def _targets(made: Installation, real: Lures, host: Lures, since: float) -> dict[str, object]:
    moat = made.home / ".moat"
    key = (moat / "ca" / "ca.key").read_text().splitlines()[1]
    doors = [str(moat / "doors" / path.name / "door.sock") for path in moat.glob("runs/*")]
    assert doors, "there is no neighbour"
    at_real, at_host = real.targets(REAL_HOST), host.targets(["127.0.0.1", "::1", *HOST_ADDRESSES])
    return {
        "tcp": at_real["tcp"] + at_host["tcp"],
        "udp": at_real["udp"] + at_host["udp"],
        "names": NAMES,
        "resolvers": RESOLVERS,
        "unix": [*real.paths, *host.paths, *doors, str(moat / "daemon" / "daemon.sock"),
                 "\0moat-neighbour", "/tmp/neighbour"],
        "own": "/workspace/hostile",
        "queue": QUEUE,
        "marks": [SECRET[::-1], key[::-1]],
        "since": since,
        "door": DOOR,
    }  # fmt: skip


def _start_here(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _start_in(world: World) -> Callable[[Callable[[], None]], threading.Thread]:
    return lambda work: in_network_of(world.host_pid, work)


def test_no_packet_leaves_the_host(siege: Siege) -> None:
    assert siege.world.internet.packets == []


def test_nothing_that_listens_on_a_host_is_touched(siege: Siege) -> None:
    assert [lure.touched for lure in siege.outside] == [[], []]


def test_no_tcp_connection_is_made(siege: Siege) -> None:
    assert siege.gained("tcp") == {}
    assert siege.gained("fast_open") == {}


@pytest.mark.parametrize("group", ["udp", "raw"])
def test_no_datagram_goes_beyond_its_own_loopback(siege: Siege, group: str) -> None:
    assert [name for name in siege.gained(group) if not name.startswith(LOOPBACK)] == []


def test_sockets_of_other_families_cannot_be_made(siege: Siege) -> None:
    assert siege.gained("families") == {}


def test_the_network_is_loopback_without_a_route(siege: Siege) -> None:
    view = siege.report["view"]

    assert set(view["interfaces"].split()) - FALLBACK_TUNNELS == {"lo"}
    assert view["routes"] == ""
    assert set(view["routes6"].split()) - FALLBACK_TUNNELS == set()


def test_the_network_cannot_be_changed(siege: Siege) -> None:
    assert siege.gained("netlink") == {}


def test_no_name_that_the_policy_denies_is_answered_or_asked_for_outside(siege: Siege) -> None:
    assert siege.report["view"]["resolvers"] == "127.0.0.1"
    assert {name: text for name, text in siege.gained("names").items() if text != "done rcode 3 answers 0"} == {}
    assert len(siege.gained("names")) > len(NAMES)  # the resolver was there, and said no
    assert siege.world.internet.queries == []


def test_no_other_resolver_answers(siege: Siege) -> None:
    assert siege.gained("other_resolvers") == {}


def test_no_unix_socket_of_the_host_or_of_another_run_is_reached(siege: Siege) -> None:
    assert siege.gained("unix_sockets") == {}


def test_no_socket_is_in_the_view(siege: Siege) -> None:
    assert siege.report["sockets_in_view"] == {}
    assert "moat-" not in siege.report["abstract"]["names"]


def test_no_memory_of_the_host_is_shared(siege: Siege) -> None:
    assert siege.gained("system_v") == {}
    assert siege.gained("posix") == {}


def test_calls_that_reach_past_a_network_namespace_are_refused(siege: Siege) -> None:
    assert {name: text for name, text in siege.report["calls"].items() if text not in REFUSED} == {}


def test_the_same_calls_are_refused_in_every_disguise(siege: Siege) -> None:
    assert {name: text for name, text in siege.report["compat"].items() if text not in REFUSED} == {}


@pytest.mark.parametrize("group", ["namespaces", "mounts", "settings"])
def test_no_namespace_mount_or_setting_of_the_kernel_can_be_had(siege: Siege, group: str) -> None:
    assert siege.gained(group) == {}


def test_nothing_can_be_typed_into_a_terminal(siege: Siege) -> None:
    assert {text for text in siege.report["terminal"].values()} <= REFUSED


def test_there_are_no_rights_and_none_can_be_had(siege: Siege) -> None:
    rights = siege.report["rights"]

    assert {name: value for name, value in rights.items() if name.startswith("Cap") and value.strip("0")} == {}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")
    assert siege.gained("more_rights") == {}


def test_the_gate_and_other_processes_cannot_be_seen_or_touched(siege: Siege) -> None:
    own = [f" {pid}" for pid, command in siege.report["processes"].items() if command.startswith(IDLE)]

    assert {name for name in siege.gained("others") if not name.endswith(tuple(own) or ("\0",))} == set()
    assert siege.gained("guessed") == {}
    assert [text for text in siege.report["processes"].values() if "/.moat/" in text] == []
    assert [
        link for link in siege.report["first"].values() if link.startswith(("/", "socket:")) and link != "/dev/null"
    ] == []


def test_the_ports_of_the_door_cannot_be_taken(siege: Siege) -> None:
    assert siege.gained("door") == {}
    assert siege.gained("privileged_options") == {}


def test_nothing_is_inherited_but_the_three_streams(siege: Siege) -> None:
    descriptors = siege.report["descriptors"]

    assert set(descriptors) == {"0", "1", "2"}
    assert [text for text in descriptors.values() if text.startswith("socket:")] == []


def test_no_secret_and_no_token_is_anywhere_inside(siege: Siege) -> None:
    assert siege.report["secrets"] == {}
    assert siege.report["tokens"] == {}
    assert int(siege.report["looked_at"]["places"]) > 50
