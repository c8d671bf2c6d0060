"""What is measured: each scenario puts one load on one peer and returns figures by name.

CPU is that of the peer's process tree between the load's `begin` and its end. `load busy` says how much of its one core
the load generator used: near 1, requests per second are the generator's, and only CPU and memory tell about the peer.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.ground import HOST, OPEN_HOST, Ground
from bench.peers import Peer
from bench.processes import cpu_s, pss_mb
from bench.tools import LOAD

Figures = dict[str, float]
Scenario = Callable[[Peer, Ground], Figures]

MB = 1_000_000
LOAD_LIMIT_S = 60.0  # the slowest peer needs a tenth of it


class LoadFailed(Exception):
    """A load had errors: what it measured counts for nothing."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. alone: whether one client at a time is measured too. settle_s: between two loads."""

    name: str
    rounds: int
    load_s: float
    down: int
    up: int
    settle_s: float
    alone: bool = True


FULL = Size("full", rounds=3, load_s=4.0, down=1000 * MB, up=200 * MB, settle_s=0.5)
QUICK = Size("quick", rounds=1, load_s=0.35, down=100 * MB, up=40 * MB, settle_s=0.05, alone=False)
TUNNELS = 1000


def scenarios(size: Size) -> dict[str, Scenario]:
    """Return the scenarios in their order; memory comes first, while the peers are fresh."""
    widths, cold = ((1, 16, 64), (1, 8)) if size.alone else ((16, 64), (8,))
    return {
        "memory": lambda peer, ground: _memory(peer),
        **{f"keep-alive c={c}": _requests("keepalive", c, size) for c in widths},
        **{f"cold c={c}": _requests("cold", c, size) for c in cold},
        "download": lambda peer, ground: _transfer(peer, ground.file(size.down), size.down, "down", is_open=True),
        "download with credential": lambda peer, ground: _transfer(peer, ground.file(size.down), size.down, "down"),
        "upload": lambda peer, ground: _transfer(peer, "/upload", size.up, "up"),
        "events 10": _events(10, 50, size),
        "events 1000": _events(TUNNELS, 10, size),
    }


def _requests(mode: str, connections: int, size: Size) -> Scenario:
    def scenario(peer: Peer, ground: Ground) -> Figures:
        result, busy_s = _load(peer, mode, "/user", connections, round(size.load_s * 1000))
        if not result["answered"]:
            raise LoadFailed("nothing was answered")
        cpu_us = {"cpu_us": busy_s / result["answered"] * 1e6} if peer.process is not None else {}
        return {"per_s": result["answered"] / result["seconds"], **_delays(result), **cpu_us}

    return scenario


def cold_once(peer: Peer, ground: Ground, size: Size) -> list[Figures]:
    """Return the figures of each round of one cold client at a time, after a first request that is not counted."""
    _load(peer, "transfer", "/user", 1, 1)
    return [_requests("cold", 1, size)(peer, ground) for _ in range(size.rounds)]


def _transfer(peer: Peer, path: str, size: int, way: str, *, is_open: bool = False) -> Figures:
    body = [size] if way == "up" else []
    result, busy_s = _load(peer, "transfer", path, 1, 1, *body, is_open=is_open)
    if way == "down" and result["received"] != size:
        raise LoadFailed(f"{result['received']} of {size} bytes came")
    cpu_s = {"cpu_s_per_gb": busy_s / (size / MB / 1000)} if peer.process is not None else {}
    return {"mb_per_s": size / MB / result["seconds"], "load_busy": result["cpu_s"] / result["seconds"], **cpu_s}


def _events(streams: int, hz: int, size: Size) -> Scenario:
    def scenario(peer: Peer, ground: Ground) -> Figures:
        result, busy_s = _load(peer, "events", f"/events?hz={hz}", streams, round(size.load_s * 2000))
        if result["answered"] < 0.5 * streams * hz * result["seconds"]:
            raise LoadFailed(f"only {result['answered']} events came")
        cpu_us = {"cpu_us": busy_s / result["answered"] * 1e6} if peer.process is not None else {}
        return {**_delays(result), **cpu_us}

    return scenario


def _memory(peer: Peer) -> Figures:
    """Idle after some requests; then with tunnels that wait, and with tunnels that all have an answer on its way."""
    if peer.process is None:
        return {}
    _load(peer, "transfer", "/user", 4, 100)
    figures = {"idle_mb": pss_mb(peer.process.pid)}
    for name, mode, path in (("waiting_mb", "idle", "/user"), ("busy_mb", "events", "/events?hz=0.1")):
        with _running(peer, mode, path, TUNNELS, 600_000) as load:
            _line(load)
            figures[name] = pss_mb(peer.process.pid)
    return figures


def _delays(result: dict[str, Any]) -> Figures:
    return {"p50_us": result["p50_us"], "p99_us": result["p99_us"], "load_busy": result["cpu_s"] / result["seconds"]}


def _load(
    peer: Peer, mode: str, path: str, width: int, amount: int, *body: int, is_open: bool = False
) -> tuple[dict[str, Any], float]:
    """Return what the load reports, and the CPU seconds of the peer meanwhile. Raises LoadFailed."""
    with _running(peer, mode, path, width, amount, *body, is_open=is_open) as load:
        _line(load)
        before = 0.0 if peer.process is None else cpu_s(peer.process.pid)
        result = json.loads(_line(load))
        busy_s = 0.0 if peer.process is None else cpu_s(peer.process.pid) - before
        if result["errors"]:
            raise LoadFailed(f"{result['errors']} errors; {_told(load)}")
    return result, busy_s


@contextmanager
def _running(
    peer: Peer, mode: str, path: str, width: int, amount: int, *body: int, is_open: bool = False
) -> Iterator[subprocess.Popen[str]]:
    port, host = (peer.open_port, OPEN_HOST) if is_open else (peer.port, HOST)
    if peer.proxy == "-" and peer.process is not None:
        host = HOST  # a reverse proxy knows one host
    command = [str(LOAD), mode, peer.proxy, str(port), host, path, str(width), str(amount), peer.token, *map(str, body)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as load:
        limit = threading.Timer(LOAD_LIMIT_S, load.kill)
        limit.start()
        try:
            yield load
        finally:
            limit.cancel()
            load.kill()


def _line(load: subprocess.Popen[str]) -> str:
    line = load.stdout.readline()  # type: ignore[union-attr]  # a pipe: see _running
    if not line:
        raise LoadFailed(_told(load) or "it took too long")
    return line


def _told(load: subprocess.Popen[str]) -> str:
    load.kill()
    return load.stderr.read()[:300]  # type: ignore[union-attr]  # a pipe: see _running
