"""Hands a run to a process of its own, so that the command line may go: closed, detached, or never attached (`-d`).

    `moat run` ──fork──▶ supervisor: a session of its own, no terminal, Launch from begin to end
         └──── one end of a socket pair: the first client of the run's control socket

A fork and not a new program: everything is loaded and planned already, and a fork takes a few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

from moat.api.errors import MoatError
from moat.api.runtimes import Sandbox
from moat.paths import Home
from moat.runs.blotting import secrets_of
from moat.runs.console import Console, Shape
from moat.runs.control import Control
from moat.runs.interrupt import STOPPING
from moat.runs.journal import Journal
from moat.runs.launch import Launch
from moat.runs.prepare import Prepared


def start_supervisor(prepared: Prepared, home: Home, shape: Shape) -> socket.socket:
    """Fork the supervisor of a run and return the socket to its control. Call it outside of an event loop."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        code = 1
        try:
            ours.close()
            code = _supervise(prepared, home, shape, theirs)
        finally:
            os._exit(code)  # nothing of the command line's own: no buffers of its files, no exit handlers
    theirs.close()
    for descriptor in shape.given.values():
        os.close(descriptor)
    return ours


def _supervise(prepared: Prepared, home: Home, shape: Shape, first: socket.socket) -> int:
    os.setsid()
    for each in (*STOPPING, signal.SIGWINCH):
        signal.signal(each, signal.SIG_DFL)  # what the caller ignores concerns its own terminal
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    with contextlib.suppress(MoatError), prepared.runtime.begun():  # errors are told to the clients
        asyncio.run(_performed(prepared, home, shape, first))
    return 0


async def _performed(prepared: Prepared, home: Home, shape: Shape, first: socket.socket) -> None:
    plan = prepared.plan
    journal = Journal(home.run(plan.registration.run_id), secrets=secrets_of(plan), known=plan.known)
    console = Console(shape, journal)
    control = Control(console, first)
    launch = Launch(plan, prepared.runtime, prepared.client, home, _announce_nothing, control)
    await launch.perform(console)


def _announce_nothing(sandbox: Sandbox) -> None:
    """Say nothing: the clients hear it from the control."""
