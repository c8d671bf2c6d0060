"""Runs the real gate with a change to it, so that a test can be the gate that the daemon must refuse.

Also a program: `python -I -S doorman.py GATE CHANGE` executes CHANGE with `gate` in scope, then the gate's main.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from_moat = not sys.flags.isolated  # as a program it runs alone, like the gate

if from_moat:
    from moat.runtimes import gatelink

    from support.sealed import NONCE, RUN_ID, stand_in

ADD_LINK = """
import socket, struct
def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
def add_link(name, kind):
    info = attribute(18, attribute(1, kind.encode()))
    body = struct.pack("=BxHiII", 0, 0, 0, 1, 1) + attribute(3, name.encode() + b"\\0") + info
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.sendto(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body, (0, 0))
        return -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
def add_any_link():
    kinds = ("dummy", "bridge", "veth")  # not every kernel has all
    assert 0 in (add_link(f"leak{number}", kind) for number, kind in enumerate(kinds))
"""


async def refusal(folder: Path, change: str, *, nonce: str = "", place: str = "outside") -> tuple[str, str]:
    """Return (what the daemon says, what the gate says) about a gate with this change; both "" if it is let in."""
    async with stand_in(folder / "home") as daemon:
        config = {"nonce": nonce or NONCE, "door": str(daemon.ticket.folder), "place": place}
        async with changed_gate(change, config) as process:
            event = await said(process)
        return daemon.refusals[0] if daemon.refusals else "", event.get("problem", "")


@contextlib.asynccontextmanager
async def changed_gate(change: str, config: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a gate with a change to it, and no command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", __file__, str(gatelink.GATE_SOURCE), change),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"run_id": RUN_ID, "argv": None, **config}).encode() + b"\n")
    try:
        yield process
    finally:
        process.stdin.close()
        await process.communicate()


async def said(process: asyncio.subprocess.Process) -> dict[str, str]:
    """Return the gate's next event."""
    assert process.stdout is not None
    event: dict[str, str] = json.loads(await process.stdout.readline())
    return event


def main(source: str, change: str) -> None:
    """Load the gate, change it, run it."""
    spec = importlib.util.spec_from_file_location("gate", source)
    assert spec is not None
    assert spec.loader is not None
    gate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gate)
    exec(change, {"gate": gate})  # noqa: S102 - the test's own text
    del sys.argv[1:]  # the gate would take them for its own
    sys.exit(gate.main())


if __name__ == "__main__":
    main(*sys.argv[1:])
