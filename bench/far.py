"""A cold client and an API that is 50 ms away: straight, and through moat with a connection kept to it.

    host ── moatnear (tun) ── 25 ms ── moatfar (tun, in a network namespace of its own) ── origin

The delay line is ours, since kernels without netem have none. Needs root; without, there is no such row.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import peers
from bench.ground import Ground
from bench.scenarios import LoadFailed, Size, cold_once
from bench.table import Results
from bench.tools import say

ONE_WAY_S = 0.025
NEAR, FAR = "10.203.107.1", "10.203.107.2"
SPACE = "moatbench"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000  # linux/if_tun.h
_LONGEST = 65_536


def measure(size: Size) -> Results:
    """Return the times of a cold request, direct and through moat."""
    if os.getuid() != 0 or not Path("/dev/net/tun").exists() or not shutil.which("ip"):
        say("no delay line without root, ip and /dev/net/tun")
        return {}
    try:
        with ExitStack() as stack:
            stack.enter_context(_line())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moat-bench-"))
            ground = Ground(Path(folder), address=FAR)
            stack.callback(ground.stop)
            ground.start(["ip", "netns", "exec", SPACE])
            return {
                ("far", "p50_ms", name): [each["p50_us"] / 1000 for each in cold_once(peer, ground, size)]
                for name, peer in (("direct", peers.direct(ground)), ("moat", peers.moat(ground)))
            }
    except (LoadFailed, OSError, subprocess.CalledProcessError) as problem:
        say(f"  no figures: {problem}")
        return {}


@contextmanager
def _line() -> Iterator[None]:
    """Have both addresses, and packets between them take their time."""
    _run("ip", "netns", "add", SPACE)
    near, far = _tun("moatnear"), _tun("moatfar")
    over = threading.Event()
    carrier = threading.Thread(target=_carry, args=(near, far, over))
    try:
        _run("ip", "addr", "add", NEAR, "peer", FAR, "dev", "moatnear")
        _run("ip", "link", "set", "moatnear", "up")
        _run("ip", "link", "set", "moatfar", "netns", SPACE)
        _run("ip", "-n", SPACE, "addr", "add", FAR, "peer", NEAR, "dev", "moatfar")
        _run("ip", "-n", SPACE, "link", "set", "moatfar", "up")
        _run("ip", "-n", SPACE, "link", "set", "lo", "up")
        carrier.start()
        yield
    finally:
        over.set()
        if carrier.is_alive():
            carrier.join()
        os.close(near)
        os.close(far)
        _run("ip", "netns", "del", SPACE)


def _carry(near: int, far: int, over: threading.Event) -> None:
    """Hand packets to the other end when they have been on their way for long enough."""
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while not over.is_set():
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.1
        for source in select.select([near, far], [], [], wait_s)[0]:
            count += 1  # packets of one moment stay in their order
            packet = os.read(source, _LONGEST)
            heapq.heappush(under_way, (time.monotonic() + ONE_WAY_S, count, far if source == near else near, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(under_way)
            os.write(target, packet)


def _tun(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
