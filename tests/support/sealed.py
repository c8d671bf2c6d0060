"""A stand-in for daemon and worker, around the real gate, door and bubblewrap: one sealed run, start to finish.

Also a program, so that a test can be another user: `python sealed.py` reads a request and prints the outcome, as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moat.api.container import Mount
from moat.api.errors import MoatError, SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec, Stdio
from moat.runtimes.bubblewrap import Bubblewrap
from moat.runtimes.door import DoorListener, HandedSocket, OpenDoor, admit

RUN_ID = "run_0123456789ab"
NONCE = "n0nce-of-the-stand-in"
ANSWER = "answer-of-the-stand-in"
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/home/moat", "LANG": "C.UTF-8"}


@dataclass(slots=True)
class StandIn:
    """What the stand-in daemon saw. doors: opened ones, in order. refusals: what admit raised."""

    home: Path
    doors: list[OpenDoor] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    exit_codes: list[int | None] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ticket(self) -> DoorTicket:
        return DoorTicket(RUN_ID, self.home / "doors" / RUN_ID, NONCE)


@contextlib.asynccontextmanager
async def stand_in(home: Path, *, taken_cookies: Sequence[int] = (), answer: str = ANSWER) -> AsyncIterator[StandIn]:
    """Listen at a run's door and open it to a gate that proves itself."""
    state = StandIn(home)
    listener = DoorListener(state.ticket.folder)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listener.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        serving = tasks.create_task(_serve(state, listener, stack, taken_cookies, answer))
        try:
            yield state
        finally:
            serving.cancel()


async def _serve(
    state: StandIn, listener: DoorListener, stack: contextlib.AsyncExitStack, taken: Sequence[int], answer: str
) -> None:
    async def hand_on(sockets: Sequence[HandedSocket]) -> None:
        for one in sockets:
            if one.name in ("proxy", "http", "tls"):
                server = await asyncio.start_server(_greet, sock=one.sock.dup())
                stack.callback(server.close)

    while True:
        channel = await listener.accept()
        try:
            door = await admit(channel, nonce=NONCE, answer=answer, taken_cookies=taken, hand_on=hand_on)
        except SandboxFailed as failure:
            state.refusals.append(failure.problem)
            continue
        state.doors.append(door)
        door.open()
        state.opened.set()
        state.exit_codes.append(await door.watch())
        state.ended.set()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    text = ANSWER if head.startswith(b"GET /_moat/probe ") else "hello from the stand-in"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
    with contextlib.suppress(OSError):
        await writer.drain()
    writer.close()


def a_spec(
    argv: Sequence[str],
    workspace: Path,
    *,
    mounts: Sequence[Mount] = (),
    env: Mapping[str, str] | None = None,
    terminal: tuple[int, int] | None = None,
    allow_sockets: bool = False,
) -> SandboxSpec:
    """Return a specification with workspace at /workspace."""
    return SandboxSpec(
        run_id=RUN_ID,
        name="calm-otter",
        argv=tuple(argv),
        env={**ENVIRONMENT, **(env or {})},
        mounts=(Mount(workspace, "/workspace"), *mounts),
        workdir="/workspace",
        home="/home/moat",
        terminal=terminal,
        allow_sockets=allow_sockets,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. problem: the error that launch raised instead."""

    code: int | None
    out: bytes = b""
    err: bytes = b""
    problem: str = ""

    @property
    def text(self) -> str:
        return self.out.decode()


async def run_sealed(home: Path, spec: SandboxSpec, *, stdin: bytes = b"") -> Outcome:
    """Run one command in bubblewrap behind a door of the stand-in's; files are its standard streams."""
    with contextlib.ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        async with stand_in(home) as daemon:
            try:
                sandbox = await Bubblewrap().launch(
                    spec, daemon.ticket, Stdio(given.fileno(), out.fileno(), err.fileno()), _nothing
                )
            except MoatError as failure:
                return Outcome(None, problem=failure.problem)
            try:
                code = await sandbox.wait()
            finally:
                await sandbox.close()
            await daemon.ended.wait()
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read())


async def _nothing(container_id: str) -> None:
    del container_id


def main(request: dict[str, Any]) -> None:
    """Do what run_sealed does, for another user."""
    workspace = Path(request["workspace"])
    spec = a_spec(request["argv"], workspace, env=request["env"])
    outcome = asyncio.run(run_sealed(Path(request["home"]), spec, stdin=base64.b64decode(request["stdin"])))
    answer = {
        "code": outcome.code,
        "out": base64.b64encode(outcome.out).decode(),
        "err": base64.b64encode(outcome.err).decode(),
        "problem": outcome.problem,
    }
    os.write(1, json.dumps(answer).encode())


if __name__ == "__main__":
    main(json.load(sys.stdin))
