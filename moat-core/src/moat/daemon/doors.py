"""The doors of live runs: a listener until the gate has proved itself, then an open door until the gate is gone.

    make ─▶ admit: gate's sockets ─▶ worker, run closed ─▶ probe judged ─▶ run open ─▶ open: command starts
                                                             exit_code: gate gone ◀─────────┘

`moat.runtimes.door` judges; here its verdict is joined with registry and worker. A run is never open before its proof.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from moat.api.errors import RunNotFound, SandboxFailed
from moat.api.runs import RunContext
from moat.daemon.registry import Registry
from moat.daemon.worker import Worker
from moat.frames import FrameChannel
from moat.ids import new_token
from moat.paths import Home
from moat.proxy.messages import ListenName
from moat.runtimes.door import DoorListener, HandedSocket, OpenDoor, admit

log = logging.getLogger(__name__)


class Doors:
    """Makes doors and knows which network namespaces the open ones are in."""

    def __init__(self, home: Home, registry: Registry, worker: Worker) -> None:
        self.registry = registry
        self.worker = worker
        self.cookies: dict[str, int] = {}
        self._home = home

    def make(self, run_id: str) -> Door:
        """Return a door that a gate can come to."""
        return Door(self, run_id, self._home.door(run_id))


class Door:
    """One run's door. admit, open and exit_code are called in this order, by one task; close by anybody, any time."""

    def __init__(self, doors: Doors, run_id: str, folder: Path) -> None:
        self.folder = folder
        self.nonce = new_token()
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
            channel = await self._listener.accept()
            try:
                self._open = await self._judged(channel, names)
            except SandboxFailed as failure:
                self._doors.worker.drop(self._run_id)
                log.warning("a gate was refused", extra={"run_id": self._run_id, "problem": failure.problem})
        self._listener.close()  # the nonce is for one gate
        self._doors.cookies[self._run_id] = self._open.cookie
        self._put(replace(self._context(), is_open=True, probe_answer=""))
        await self._doors.worker.barrier()

    def open(self) -> None:
        """Let the gate start the command."""
        if self._open is not None:
            self._open.open()

    async def exit_code(self) -> int | None:
        """Wait until the gate is gone; return the command's exit code, None if it was never told."""
        return None if self._open is None else await self._open.watch()

    def close(self) -> None:
        """Let go of the gate, the sockets and the folder. Safe to call twice."""
        self._listener.remove()
        self._doors.cookies.pop(self._run_id, None)
        if self._open is not None:
            self._open.close()

    async def _judged(self, channel: FrameChannel, names: Mapping[str, str]) -> OpenDoor:
        answer = new_token()

        async def hand_on(sockets: Sequence[HandedSocket]) -> None:
            self._put(replace(self._context(), is_open=False, probe_answer=answer), names)
            for handed in sockets:
                self._doors.worker.listen(self._run_id, cast("ListenName", handed.name), handed.sock.dup())
            await self._doors.worker.barrier()

        taken = [cookie for run_id, cookie in self._doors.cookies.items() if run_id != self._run_id]
        return await admit(channel, nonce=self.nonce, answer=answer, taken_cookies=taken, hand_on=hand_on)

    def _context(self) -> RunContext:
        entry = self._doors.registry.get(self._run_id)
        if entry is None:
            raise RunNotFound(f"{self._run_id} ended before its gate came", hint="run: moat list")
        return entry.context

    def _put(self, context: RunContext, names: Mapping[str, str] | None = None) -> None:
        entry = self._doors.registry.get(self._run_id)
        if entry is not None:
            self._doors.registry.replace(replace(entry, context=context))
            self._doors.worker.put(context, names)
