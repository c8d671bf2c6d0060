"""A host and an internet of the test's own, so that a test sees every packet that leaves: two namespaces and one wire.

    host: moat runs here; resolv.conf says 9.9.9.9   h0 ════ w0   world: owns every address there is, IPv4 and IPv6

Nothing here touches the real network, and nothing has to be cleaned up: namespaces end with their holders.
Needs root, unshare, nsenter and ip.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from support.installation import Installation, installation
from support.internet import Internet, serve_internet

T = TypeVar("T")
RESOLVER = "9.9.9.9"
HOST_ADDRESSES = ("198.51.100.2", "fd77::2")
CLONE_NEWNET = 0x40000000

_WORLD = """
ip link set lo up
ip addr add 198.51.100.1/24 dev w0; ip addr add fd77::1/64 dev w0 nodad; ip link set w0 up
ip route add local 0.0.0.0/0 dev lo
for there in 2000::/3 fd00::/16 64:ff9b::/96; do ip -6 route add local $there dev lo; done
"""
_HOST = """
ip link set lo up
ip addr add 198.51.100.2/24 dev h0; ip addr add fd77::2/64 dev h0 nodad; ip link set h0 up
ip route add default via 198.51.100.1; ip -6 route add default via fd77::1
mount --bind {resolv} "$(readlink -f /etc/resolv.conf)"
"""


@dataclass(frozen=True)
class World:
    """host_pid: a process in the host's network and mount namespaces. internet: what lies behind the wire."""

    host_pid: int
    internet: Internet

    @property
    def through(self) -> tuple[str, ...]:
        """Return the words that start a program on the host of this world."""
        return ("nsenter", f"--target={self.host_pid}", "--net", "--mount", "--")

    @contextlib.contextmanager
    def installation(self, user: str = "", **env: str) -> Iterator[Installation]:
        """Make an installation whose every process lives on this host and trusts this internet's authority."""
        with installation(user, **env) as made:
            made.through = self.through
            roots = made.file("roots.pem", self.internet.ca.pem)
            made.configure({"upstream": {"ca_bundle": str(roots)}})
            yield made


@contextlib.contextmanager
def a_world() -> Iterator[World]:
    """Make both namespaces, run the internet in a thread, and take everything away."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moat-world-")))
        resolv = folder / "resolv.conf"
        resolv.write_text(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
        folder.chmod(0o755)
        world = stack.enter_context(_namespace("--net"))
        host = stack.enter_context(_namespace("--net", "--mount"))
        link = f"ip link add h0 type veth peer name w0 netns {world}"
        _sh(host, link)
        _sh(world, _WORLD)
        _sh(host, _HOST.format(resolv=resolv))
        internet = Internet()
        stack.enter_context(serve_internet(internet, lambda work: in_network_of(world, work)))
        yield World(host, internet)


def in_network_of(pid: int, work: Callable[[], T]) -> threading.Thread:
    """Return a started thread that does work inside the network namespace of pid."""

    def move_and_work() -> None:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot enter a network namespace")
        finally:
            os.close(descriptor)
        work()

    thread = threading.Thread(target=move_and_work, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def _namespace(*kinds: str) -> Iterator[int]:
    argv = ["unshare", *kinds, "sh", "-c", "echo ready; exec sleep infinity"]
    holder = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def _sh(pid: int, script: str) -> None:
    argv = ["nsenter", f"--target={pid}", "--net", "--mount", "--", "sh", "-ec", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
