"""One run with the docker runtime and the stand-in daemon, as a program: a test can be any user, feed it and kill it.

    python -m support.docker_run '{"home": …, "workspace": …, "argv": […], "report": …}'

Its input and output are the command's, its exit code too; 125 when there was no run, and the problem as its error.
report: a file that gets one JSON object a line: {"created": container id}, {"caveat": …} once it has started,
{"failed": problem}.
SIGUSR1 interrupts the command. Imports moat and the standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from moat.api.container import Mount
from moat.api.errors import MoatError
from moat.api.runtimes import DoorTicket, SandboxSpec, Stdio
from moat.paths import Home, private_folder
from moat.runtimes.docker import Docker

from support.sealed import ANSWER, RUN_ID, StandIn, a_spec, stand_in

FAILED = 125
IMAGE = "debian:bookworm-slim"
TOKEN = "token-s3cr3t"


async def run(order: dict[str, Any]) -> int:
    """Make the run that was ordered, wait for its end, return its exit code."""
    os.environ["MOAT_HOME"] = order["home"]
    home = private_folder(Path(order["home"]))
    private_folder(Home(home).inside(RUN_ID))
    async with stand_in(home, answer=order.get("answer", ANSWER)) as daemon, asyncio.TaskGroup() as group:
        reaping = group.create_task(_stop_a_run_without_a_gate(daemon))
        try:
            return await _launch(order, daemon, group)
        except MoatError as failure:
            _report(order, failed=failure.problem)
            sys.stderr.write(f"docker_run: {failure.problem}\n")
            return FAILED
        finally:
            reaping.cancel()


async def _launch(order: dict[str, Any], daemon: StandIn, group: asyncio.TaskGroup) -> int:
    async def created(container_id: str) -> None:
        _report(order, created=container_id)

    ticket = replace(daemon.ticket, listen=_listen, nonce=order.get("nonce", daemon.ticket.nonce))
    if "door" in order:
        ticket = DoorTicket(RUN_ID, Path(order["door"]), ticket.nonce, listen=_listen)
    sandbox = await Docker().launch(_spec(order), ticket, Stdio(0, 1, 2), created)
    try:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: group.create_task(sandbox.signal(signal.SIGINT)))
        _report(order, caveat=sandbox.caveat)
        return await sandbox.wait()
    finally:
        await sandbox.close()


async def _stop_a_run_without_a_gate(daemon: StandIn) -> None:
    await daemon.ended.wait()
    await Docker().reap(RUN_ID)


async def _listen(address: str) -> str:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntoken")
        writer.close()

    server = await asyncio.start_server(greet, address, 0)
    return f"http://moat:{TOKEN}@{address}:{server.sockets[0].getsockname()[1]}"


def _spec(order: dict[str, Any]) -> SandboxSpec:
    mounts = [Mount(Path(source), target, read_only) for source, target, read_only in order.get("mounts", ())]
    proxy = "http://127.0.0.1:19080"
    env = {"HOME": "/home/moat", "http_proxy": proxy, **order.get("env", {})}
    terminal = tuple(order["terminal"]) if order.get("terminal") else None
    spec = a_spec(order["argv"], Path(order["workspace"]), mounts=mounts, env=env, terminal=terminal)
    return replace(spec, image=order.get("image", IMAGE))


def _report(order: dict[str, Any], **facts: str) -> None:
    if order.get("report"):
        with Path(order["report"]).open("a") as file:
            file.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(run(json.loads(sys.argv[1]))))
