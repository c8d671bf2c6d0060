"""A run whose namespace got a way out before its command started is refused by the live probe, in the whole product.

The worker is stopped while the gate hands its sockets over: the daemon waits for it, and there is time for the deed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, eventually
from support.world import World

from hostile.remains import Parts, namespace_of, parts_of, remains
from hostile.sandbox import BUBBLEWRAP, Place

DEEDS = {
    "a wire with a route": "ip addr add 198.51.100.77/24 dev thief; ip link set thief up; "
    "ip route add default via 198.51.100.1",
    "a wire without an address": "ip link set thief up",
    "a wire that is down": "true",
    "a route to nowhere": "ip link del thief; ip route add default dev lo",
    "another loopback that is a bridge": "ip link add br0 type bridge; ip link set br0 up; ip link del thief",
}  # fmt: skip
MAY_BE_SEALED = {"a route to nowhere"}  # loopback leads nowhere, whatever the table says


def test_a_run_with_a_way_out_is_refused(place: Place, world: World) -> None:
    refused(place, world, "a wire with a route")


@pytest.mark.bubblewrap
@pytest.mark.parametrize("deed", list(DEEDS)[1:])
def test_whatever_the_way_out_looks_like(world: World, deed: str) -> None:
    refused(BUBBLEWRAP, world, deed)


def refused(place: Place, world: World, deed: str) -> None:
    """Do the deed while a run waits at its door, and check that its command never starts."""
    with world.installation(place.user) as made:
        made.file("work/here", "")
        made.ok("proxy", "start")
        with _stopped(_worker(made)):
            cli = made.start("run", made.home / "work", "--runtime", place.runtime, "--", "touch", "/workspace/ran")
            parts = _waiting(made, place, cli.pid)
            _connect(world, parts, DEEDS[deed])
        _, complaint = cli.communicate(timeout=60)

        if deed not in MAY_BE_SEALED:
            assert (cli.returncode, b"refused" in complaint) == (1, True), complaint
            assert not (made.home / "work" / "ran").exists()
        eventually("nothing is left", lambda: not remains(made, parts))


def test_without_the_deed_the_same_run_works(place: Place, world: World) -> None:
    with world.installation(place.user) as made:
        made.file("work/here", "")
        made.ok("proxy", "start")
        with _stopped(_worker(made)):
            cli = made.start("run", made.home / "work", "--runtime", place.runtime, "--", "touch", "/workspace/ran")
            _waiting(made, place, cli.pid)
        _, complaint = cli.communicate(timeout=60)

        assert cli.returncode == 0, complaint
        assert (made.home / "work" / "ran").exists()


def _worker(made: Installation) -> int:
    return int(json.loads(made.ok("proxy", "status", "--json"))["worker_pid"])


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _waiting(made: Installation, place: Place, cli: int) -> Parts:
    """Wait for a gate that has a namespace of its own and has bound its sockets."""
    found: list[Parts] = []

    def there() -> bool:
        with contextlib.suppress(StopIteration, OSError, IndexError, ValueError):
            parts = parts_of(made, place, cli)
            own = parts.namespace not in (0, namespace_of(os.getpid()), namespace_of(cli))
            listening = Path(f"/proc/{parts.gate}/net/tcp").read_text().count(" 0A ")
            if own and listening == 4:
                found.append(parts)
        return bool(found)

    eventually("the gate waits at the door", there)
    return found[0]


def _connect(world: World, parts: Parts, deed: str) -> None:
    """Put one end of a wire into the run's namespace, the other onto the host of the world."""
    hook = f"hook{parts.gate}"  # the kernel takes its time to remove that of the last run
    _do(["nsenter", f"--target={world.host_pid}", "--net", "--", "ip", "link", "add", hook, "type", "veth",
         "peer", "name", "thief", "netns", str(parts.gate)])  # fmt: skip
    _do(["nsenter", f"--target={parts.gate}", "--net", "--", "sh", "-ec", deed])


def _do(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
