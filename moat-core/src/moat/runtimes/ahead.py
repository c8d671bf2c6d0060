"""A gate that is started ahead of its run, while everything else is still imported, asked and planned: launcher's side.

It stands in its namespace already and has tried bwrap there (`gate_ahead.py`), so what took its time one after the
other, a trial and a start of Python, is over when it is needed. It knows nothing of any run, and ends when we do. As
soon as there is a run it opens its door, while we find out what its command needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import IO

from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, SandboxSpec
from moat.runtimes.child import Child, found
from moat.runtimes.gatelink import GateConfig, gate_program
from moat.runtimes.view import ISOLATION

VARIABLE = "MOAT_BUBBLEWRAP_GATE"
TRIAL_VIEW = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "/bin/true")
COMPLAINT_BYTES = 16_384  # kept for an error; inside, the run may reach the file, and cannot make it grow
VERDICT_S = 20.0  # the gate bounds its trial itself
FIRST_NUMBER = 100  # of descriptors that are given: a gate has some ten of its own, and gets these at the same numbers
_THEN = "import gate_ahead; os._exit(gate_ahead.main(gate.enter_namespace, gate.main))"


def trial_argv() -> tuple[str, ...] | None:
    """Return the command that shows whether bwrap works; None where no gate is to stand outside."""
    bwrap = found("bwrap")
    return None if bwrap is None or os.environ.get(VARIABLE) == "inside" else (bwrap, *ISOLATION, *TRIAL_VIEW)


class GateAhead:
    """One gate without a run. Take over its parts (child, sock, complaints) by `give`, or close it."""

    def __init__(self, trial: Sequence[str] = ()) -> None:
        """Start it, and return at once. trial: the command that shows whether bwrap works. Raises OSError."""
        self.sock, theirs = socket.socketpair()
        self.complaints = bounded_file()
        self._verdict: str | None = None
        self._is_opening = False
        self.given: SandboxSpec | None = None  # what it was told to run
        try:
            argv = (*gate_program(_THEN), *trial)
            self.child = Child(argv, standard=theirs.fileno(), complaints=self.complaints)
        except OSError:
            self.sock.close()
            self.complaints.close()
            raise
        finally:
            theirs.close()

    async def verdict(self) -> str:
        """Return why no sandbox can be made here, "" if one can."""
        if self._verdict is None:
            import asyncio  # not at the top: this gate is started before anything that takes long to load

            try:
                async with asyncio.timeout(VERDICT_S):
                    self._verdict = await self._heard()
            except (TimeoutError, OSError):
                self._verdict = "the gate does not start"
        return self._verdict

    def heard(self) -> str:
        """Return the same, where there is no event loop."""
        if self._verdict is None:
            self.sock.settimeout(VERDICT_S)
            try:
                with self.sock.makefile("rb") as told:
                    self._verdict = self._understood(told.readline())
            except OSError:
                self._verdict = "the gate does not start"
        return self._verdict

    def open_door(self, ticket: DoorTicket) -> None:
        """Tell it that there is a run, once, and not yet of which command. Raises OSError."""
        if not self._is_opening:
            config = GateConfig(ticket.run_id, ticket.nonce, str(ticket.folder), "entered", places=ticket.places)
            self.sock.setblocking(True)
            self.sock.sendall(config.line())
            self._is_opening = True

    def give(self, spec: SandboxSpec, descriptors: Sequence[int], config: GateConfig) -> None:
        """Tell it what to run, and give it what that needs: numbers from FIRST_NUMBER on. Raises OSError."""
        line = config.line()
        self.sock.setblocking(True)
        socket.send_fds(self.sock, [bytes([len(descriptors)])], descriptors)
        self.sock.sendall(struct.pack(f"={len(descriptors)}iI", *descriptors, len(line)) + line)
        self.given = spec

    def close(self) -> None:
        """End it: there will be no run."""
        self.sock.close()
        self.child.kill()
        self.child.reap()
        self.complaints.close()

    async def _heard(self) -> str:
        import asyncio

        self.sock.setblocking(False)
        line = b""
        while not line.endswith(b"\n"):
            part = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
            if not part:
                break
            line += part
        return self._understood(line)

    def _understood(self, line: bytes) -> str:
        if line.endswith(b"\n"):
            return str(json.loads(line))
        return complaint(self.complaints) or "the gate does not start"


def bounded_file() -> IO[bytes]:
    """Return a file in memory of a fixed size."""
    descriptor = os.memfd_create("moat-complaints", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, COMPLAINT_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return os.fdopen(descriptor, "r+b", buffering=0)


def complaint(file: IO[bytes]) -> str:
    """Return the last line that was written into a bounded file, "" for none."""
    file.seek(0)
    return file.read().decode(errors="replace").strip("\0 \n").rpartition("\n")[2]


def kept_high(descriptor: int) -> int:
    """Return a copy of a descriptor with a number that can be given."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_NUMBER)


def not_started(why: object) -> SandboxFailed:
    """Return the error for a gate that does not start."""
    return SandboxFailed(f"the gate cannot be started: {why}", hint="run: moat doctor")
