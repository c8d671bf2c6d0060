"""Reaches whoever launched a run, from another command line of the same user: through the run's control socket.

Launcher there ─▶ connects.  Launcher gone (killed, its machine restarted) ─▶ refused; the daemon then ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import replace

from moat.api.errors import SandboxFailed
from moat.api.runs import RunInfo
from moat.frames import FrameChannel
from moat.paths import Home, socket_address
from moat.trace.store import LIVE_STATES, RunStore

POLL_S = 0.1
GONE_S = 40.0  # a run without its launcher is ended by then: its gate waits 30 s for a daemon


def connected(home: Home, info: RunInfo) -> socket.socket:
    """Return a connection to a run's launcher. Raises SandboxFailed when there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_address(home.control(info.run_id)))
    except OSError:
        sock.close()
        problem = f"whoever launched {info.name} cannot be reached"
        raise SandboxFailed(problem, hint="if it was killed, the daemon ends the run; see: moat list") from None
    return sock


async def send_signal(sock: socket.socket, number: int, grace_s: float) -> None:
    """Send the run's command a signal; it is killed when it has not ended within grace_s."""
    channel = FrameChannel(sock)
    try:
        channel.send({"signal": int(number), "grace_s": grace_s})
        await channel.drained()
    finally:
        channel.close()


async def awaited(home: Home, info: RunInfo, limit_s: float | None = None) -> RunInfo:
    """Return what is written about a run once it is over, or, as it is then, after limit_s seconds.

    A run whose launcher is gone and that nobody ends is given as "lost".
    """
    begun = last_reached = time.monotonic()
    while True:
        now, seen = time.monotonic(), RunStore(home).read(info.run_id)
        if seen.state not in LIVE_STATES or (limit_s is not None and now - begun > limit_s):
            return seen
        with contextlib.suppress(SandboxFailed):
            connected(home, info).close()
            last_reached = now
        if now - last_reached > GONE_S:
            return replace(seen, state="lost")
        await asyncio.sleep(POLL_S)
