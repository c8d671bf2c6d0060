"""Addresses that must not be dialled, in every disguise, even for a run that may reach every public host."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from support.installation import Installation, eventually
from support.world import World, in_network_of

from hostile.conftest import Bench
from hostile.lures import Lures, lures
from hostile.sandbox import BUBBLEWRAP, live_run, statuses
from hostile.test_authority import get

METADATA = ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "192.0.0.192", "168.63.129.16",
            "[::ffff:169.254.169.254]", "[::169.254.169.254]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::1]",
            "[::ffff:0:169.254.169.254]", "metadata.google.internal", "METADATA.GOOGLE.INTERNAL.",
            "metadata.goog"]  # fmt: skip
PRIVATE = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.5", "172.16.0.1", "172.17.0.1",
           "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.1.1", "192.0.2.1", "198.18.0.1", "198.51.100.2",
           "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]",
           "[::ffff:7f00:1]", "[::7f00:1]", "[0:0:0:0:0:ffff:10.0.0.5]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a00:5]",
           "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:a00:5::f5ff:fffa]", "[fe80::1]", "[fc00::1]", "[fd77::2]",
           "[ff02::1]", "[2001:db8::1]", "[100::1]", "[4000::1]"]  # fmt: skip


@pytest.fixture(scope="module")
def services(world: World) -> Iterator[Lures]:
    """Services of the host itself, on every address it has."""

    def start(work: object) -> threading.Thread:
        assert callable(work)
        return in_network_of(world.host_pid, work)

    with lures([], start, "services") as made:
        yield made


@pytest.mark.parametrize("host", [*METADATA, *PRIVATE])
def test_an_address_that_is_not_public_is_never_dialled(bench: Bench, services: Lures, host: str) -> None:
    bench.internet.name("metadata.google.internal", "169.254.169.254")
    bench.internet.name("metadata.goog", "169.254.169.254")
    port = services.tcp6 if host.startswith("[") else services.tcp

    tunnels = [statuses(bench.free.in_tunnel(f"{host}:{number}", get(f"{host}:{number}"), server_name=None).came)
               for number in (443, port)]  # fmt: skip
    plain = [
        statuses(bench.free.exchange(get(f"{host}:{number}", f"http://{host}:{number}/"))) for number in (80, port)
    ]

    assert [answer for answer in (*tunnels, *plain) if answer and answer[0] not in (400, 403)] == []
    assert [answer[0] for answer in plain if answer] != []
    assert [packet for packet in bench.internet.packets if packet.port != 53] == []
    assert services.touched == []


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("localtest.me", ["127.0.0.1"]),
        ("localhost.example.com", ["127.0.0.1", "::1"]),
        ("host.docker.internal", ["172.17.0.1"]),
        ("intern.example.com", ["10.0.0.5"]),
        ("cloud.example.com", ["169.254.169.254"]),
        ("six.example.com", ["::ffff:169.254.169.254"]),
        ("nat.example.com", ["64:ff9b::a00:5"]),
        ("zero.example.com", ["0.0.0.0"]),
    ],
)
def test_a_name_that_leads_to_such_an_address_is_refused(
    bench: Bench, services: Lures, name: str, addresses: list[str]
) -> None:
    bench.internet.name(name, *addresses)
    port = services.tcp

    tunnel = bench.free.in_tunnel(f"{name}:{port}", get(f"{name}:{port}"))
    plain = bench.free.exchange(get(f"{name}:{port}", f"http://{name}:{port}/"))

    assert (statuses(tunnel.came), statuses(plain)) == ([403], [403])
    assert [packet for packet in bench.internet.packets if packet.port != 53] == []
    assert services.touched == []


def test_an_alias_is_judged_by_where_it_ends(bench: Bench) -> None:
    bench.internet.name("inner.evil.test", "10.0.0.5")
    bench.internet.aliases["alias.example.com"] = "inner.evil.test"

    plain = bench.free.exchange(get("alias.example.com", "http://alias.example.com/"))

    assert statuses(plain) == [403]
    assert {packet.port for packet in bench.internet.packets} == {53}


def test_of_mixed_answers_only_the_public_one_is_dialled(bench: Bench, services: Lures) -> None:
    bench.internet.name("mixed.example.com", "127.0.0.1", "93.184.216.40", "10.0.0.5")

    plain = bench.free.exchange(get("mixed.example.com", "http://mixed.example.com/"))

    assert statuses(plain) in ([200], [403])
    assert {packet.destination for packet in bench.internet.packets if packet.port != 53} <= {"93.184.216.40"}
    assert services.touched == []


def test_a_name_that_is_rebound_is_judged_again_or_kept(bench: Bench, services: Lures) -> None:
    port = services.tcp
    bench.internet.dns["rebind.example.com"] = [["93.184.216.41"], ["127.0.0.1"]]

    first = bench.free.exchange(get("rebind.example.com", "http://rebind.example.com/"))
    later = [bench.free.exchange(get(f"rebind.example.com:{number}", f"http://rebind.example.com:{number}/"))
             for number in (80, port)]  # fmt: skip

    assert statuses(first) == [200]
    assert statuses(later[1]) == [403]
    assert {packet.destination for packet in bench.internet.packets if packet.port != 53} == {"93.184.216.41"}
    assert services.touched == []


def test_the_daemons_own_port_cannot_be_reached_through_the_proxy(bench: Bench) -> None:
    status = json.loads(bench.made.ok("proxy", "status", "--json"))
    own = [f"127.0.0.1:{status['proxy_port']}", "127.0.0.1:19080", "localhost:19080", f"[::1]:{status['proxy_port']}"]

    answers = [statuses(bench.free.in_tunnel(target, get("x")).connect)[:1] for target in own]
    plain = [statuses(bench.free.exchange(get(target, f"http://{target}/_moat/probe")))[:1] for target in own]

    assert {code for codes in plain for code in codes} <= {403, 502}
    assert all(codes for codes in (*answers, *plain))


@pytest.mark.parametrize("own", ["185.199.108.1", "2606:50c0::1"])
def test_a_public_address_of_the_host_is_the_hosts_all_the_same(
    bench: Bench, world: World, services: Lures, own: str
) -> None:
    subprocess.run([*world.through, "ip", "address", "replace", own, "dev", "lo"], check=True)
    lookup = [*world.through, "ip", "route", "get", own]
    eventually(  # of IPv6 it does so a moment later, and has no way there till then
        "the kernel takes it for its own",
        lambda: subprocess.run(lookup, check=False, capture_output=True).stdout.startswith(b"local "),
    )
    bench.internet.name("host.example.com", own)
    port, host = (services.tcp6, f"[{own}]") if ":" in own else (services.tcp, own)

    answers = [statuses(bench.free.exchange(get(f"{name}:{port}", f"http://{name}:{port}/")))
               for name in (host, "host.example.com")]  # fmt: skip
    subprocess.run([*world.through, "ip", "address", "delete", own, "dev", "lo"], check=True)

    assert answers == [[403], [403]]
    assert services.touched == []


def test_ranges_that_are_opened_open_no_metadata_service(world: World) -> None:
    with world.installation() as made:
        _open_everything(made)
        with live_run(made, BUBBLEWRAP) as run:
            world.internet.forget()

            opened = statuses(run.exchange(get("10.0.0.5", "http://10.0.0.5/")))
            closed = [statuses(run.exchange(get(host, f"http://{host}/"))) for host in METADATA[:9]]

            assert opened == [200]
            assert {answer[0] for answer in closed} <= {400, 403}
            assert {one.address for one in world.internet.connections} == {"10.0.0.5"}


def _open_everything(made: Installation) -> None:
    made.configure({"upstream": {"allow_cidrs": ["0.0.0.0/0", "::/0"]}})
