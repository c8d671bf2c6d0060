"""The doors of live runs: a listener until the gate has proved itself, then an open door until the gate is gone.

    make ─▶ admit: gate's sockets ─▶ worker, run closed ─▶ probe judged ─▶ run open ─▶ open: command starts
                                                             exit_code: gate gone ◀─────────┘

`moat.runtimes.door` judges; here its verdict is joined with registry and worker. A run is never open before its proof.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from moat.api.errors import RunNotFound, SandboxFailed
from moat.api.runs import RunContext
from moat.daemon.registry import Entry, Registry
from moat.daemon.worker import Worker
from moat.frames import FrameChannel
from moat.ids import new_token
from moat.paths import Home
from moat.runtimes.door import DoorListener, HandedSocket, OpenDoor, admit, hash_nonce

BACK_OFF_S = 0.2

log = logging.getLogger(__name__)


class Doors:
    """Makes doors and knows which network namespaces the open ones are in."""

    def __init__(self, home: Home, registry: Registry, worker: Worker) -> None:
        self.registry = registry
        self.worker = worker
        self.cookies: dict[str, int] = {}
        self.open_doors: dict[str, OpenDoor] = {}
        self._home = home

    def make(self, run_id: str) -> Door:
        """Return a door that a gate can come to. Raises OSError."""
        nonce = new_token()
        door = Door(self, run_id, self._home.door(run_id), hash_nonce(nonce))
        door.nonce = nonce
        return door

    def reopen(self, entry: Entry) -> Door:
        """Return the door of a run that a daemon before this one had: for its gate and its namespace only."""
        place = entry.place
        return Door(self, entry.run_id, self._home.door(entry.run_id), place.nonce_sha256, place.cookie)

    def is_open(self, run_id: str) -> bool:
        """Return whether a run's gate is here and has proved itself."""
        return run_id in self.cookies

    async def connect(self, run_id: str, port: int) -> socket.socket:
        """Return a connection to a port inside a run. Raises ConnectionError."""
        if (door := self.open_doors.get(run_id)) is None:
            raise ConnectionError("the run has no open door")
        return await door.connect(port)


class Door:
    """One run's door. admit, open and exit_code are called in this order, by one task; close by anybody, any time.

    nonce: for the gate, "" where it knows it already.
    """

    def __init__(self, doors: Doors, run_id: str, folder: Path, nonce_sha256: str, cookie: int = 0) -> None:
        self.folder = folder
        self.nonce = ""
        self.nonce_sha256 = nonce_sha256
        self._cookie = cookie
        self._doors = doors
        self._run_id = run_id
        self._listener = DoorListener(folder)
        self._open: OpenDoor | None = None

    async def admit(self, names: Mapping[str, str]) -> None:
        """Wait for the gate and have it prove that the run is sealed; the proxy then serves the run.

        Who does not know the nonce, or proves nothing, is refused and the wait goes on: the caller bounds it.
        Raises RunNotFound when the run ended meanwhile, DaemonError when the worker does not answer.
        """
        while self._open is None:
            try:
                self._open = await self._judged(await self._listener.accept(), names)
            except SandboxFailed as failure:
                self._doors.worker.drop(self._run_id)
                log.warning("a gate was refused", extra={"run_id": self._run_id, "problem": failure.problem})
            except OSError as failure:  # out of descriptors: others may close some
                self._doors.worker.drop(self._run_id)
                log.warning("a gate could not be taken", extra={"run_id": self._run_id, "problem": str(failure)})
                await asyncio.sleep(BACK_OFF_S)
        self._listener.close()  # the nonce is for one gate
        self._doors.cookies[self._run_id] = self._open.cookie
        context = self._context()
        self._put(replace(context, is_open=not context.why_closed, probe_answer=""))
        await self._doors.worker.barrier()

    def open(self) -> None:
        """Let the gate start the command."""
        if self._open is not None:
            self._open.open()
            self._doors.open_doors[self._run_id] = self._open  # from now on: before, the gate waits for this word only

    async def exit_code(self) -> int | None:
        """Wait until the gate is gone; return the command's exit code, None if it was never told."""
        return None if self._open is None else await self._open.watch()

    def close(self) -> None:
        """Let go of the gate, the sockets and the folder. Safe to call twice."""
        self._listener.remove()
        self.leave()

    def leave(self) -> None:
        """Let go of the gate and the sockets, but not of the folder: the gate looks in it for the next daemon."""
        self._listener.close()
        self._doors.cookies.pop(self._run_id, None)
        self._doors.open_doors.pop(self._run_id, None)
        if self._open is not None:
            self._open.close()

    async def _judged(self, channel: FrameChannel, names: Mapping[str, str]) -> OpenDoor:
        answer = new_token()

        async def hand_on(sockets: Sequence[HandedSocket]) -> None:
            self._put(replace(self._context(), is_open=False, probe_answer=answer), names)
            for handed in sockets:
                self._doors.worker.listen(self._run_id, handed.name, handed.sock.dup())
            await self._doors.worker.barrier()

        taken = [cookie for run_id, cookie in self._doors.cookies.items() if run_id != self._run_id]
        return await admit(
            channel,
            nonce_sha256=self.nonce_sha256,
            answer=answer,
            taken_cookies=taken,
            hand_on=hand_on,
            cookie=self._cookie,
        )

    def _context(self) -> RunContext:
        entry = self._doors.registry.get(self._run_id)
        if entry is None:
            raise RunNotFound(f"{self._run_id} ended before its gate came", hint="run: moat list")
        return entry.context

    def _put(self, context: RunContext, names: Mapping[str, str] | None = None) -> None:
        entry = self._doors.registry.get(self._run_id)
        if entry is not None:
            place = replace(entry.place, cookie=self._doors.cookies.get(self._run_id, entry.place.cookie))
            self._doors.registry.replace(replace(entry, context=context, place=place))
            self._doors.worker.put(context, names)
