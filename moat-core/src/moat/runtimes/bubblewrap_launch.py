"""Launches a run in bubblewrap: what bwrap is told, the gate that runs it, and what stays of both while it lives.

Arguments, files and filter go to bwrap by descriptor: nothing of the run is in any process list, and no variable of the
run's touches a program outside of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeAlias

from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Execution, Sandbox, SandboxSpec, Stdio
from moat.paths import Home
from moat.runtimes import rlimits
from moat.runtimes.ahead import GateAhead, bounded_file, complaint, kept_high, not_started
from moat.runtimes.child import Child, found
from moat.runtimes.gatelink import GATE_FLAGS, GATE_SOURCE, GateConfig, GateLink
from moat.runtimes.layout import host_layout
from moat.runtimes.mounts import check_mounts
from moat.runtimes.places import mounts_of
from moat.runtimes.seccomp import bpf_filter
from moat.runtimes.view import arguments, own_files

if TYPE_CHECKING:  # asyncio is loaded where it is waited: a run is given to its gate before
    import asyncio

    _Wire: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

END_S = 8.0  # the gate's own grace for the command is 5 s
LINE_BYTES = 1024 * 1024
GATE_INSIDE = "/etc/moat/gate.py"
SETSID, ENV = "/usr/bin/setsid", "/usr/bin/env"


async def launch(
    gate: GateAhead | None,
    spec: SandboxSpec,
    ticket: DoorTicket,
    stdio: Stdio,
    created: Callable[[str], Awaitable[None]],
) -> BubblewrapSandbox:
    """Have gate open the run's door and start the command; without one bwrap starts a gate inside. Takes gate over."""
    import asyncio

    if gate is None:
        await asyncio.to_thread(_check_mounts, spec, ticket)
        sandbox, config = await _inside(spec, ticket, stdio)
    else:
        try:
            if gate.given is None:
                await asyncio.to_thread(_check_mounts, spec, ticket)
                await created(str(gate.child.pid))
                _give(gate, spec, ticket, stdio)
            sandbox, config = await BubblewrapSandbox.outside(gate), None
        except BaseException:
            gate.close()
            raise
    try:
        if gate is None:
            await created(str(sandbox.pid))
        await sandbox.open(config)
    except BaseException:
        await sandbox.close()
        raise
    return sandbox


def provide(gate: GateAhead, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> None:
    """Do what launch would, up to where it waits. Raises SandboxFailed."""
    _check_mounts(spec, ticket)
    _give(gate, spec, ticket, stdio)


class BubblewrapSandbox(Sandbox):
    """A gate of ours and what it runs. Also its Wire: a socket pair, whose one end is the gate's standard streams."""

    def __init__(self, child: Child, wire: _Wire, complaints: IO[bytes]) -> None:
        self._child = child
        self._reader, self._writer = wire
        self._complaints = complaints
        self._link = GateLink(self)
        self._bwrap = 0
        self.pid = child.pid
        self.container_id = str(child.pid)
        self.joinable: SandboxSpec | None = None  # what else runs there; None where the gate stands inside

    @classmethod
    async def outside(cls, gate: GateAhead) -> BubblewrapSandbox:
        """Take over a gate that was given what its run needs."""
        sandbox = cls(gate.child, await _wire(gate.sock), gate.complaints)
        sandbox.joinable = gate.given
        return sandbox

    @classmethod
    async def inside(cls, argv: Sequence[str], given: Sequence[int]) -> BubblewrapSandbox:
        """Start bwrap with a gate in it, which is told its end as an argument.

        The run can look into bwrap's own process, which keeps its standard streams and nothing else: they must lead
        nowhere.
        """
        ours, theirs = socket.socketpair()
        complaints = bounded_file()
        end = theirs.fileno()
        try:
            child = Child((*argv, str(end)), standard=subprocess.DEVNULL, complaints=complaints, given=(*given, end))
        except OSError as failure:
            complaints.close()
            ours.close()
            raise not_started(failure) from None
        finally:
            theirs.close()
        return cls(child, await _wire(ours), complaints)

    async def open(self, config: GateConfig | None) -> None:
        """Wait until the door is open and the command started. config: None for a gate that has it.

        Raises SandboxFailed with what was complained.
        """
        try:
            await self._link.open(config)
            self._bwrap = await self._link.started()
        except SandboxFailed as failure:
            await self._end()
            if not (said := complaint(self._complaints)):
                raise
            raise SandboxFailed(f"{failure.problem} ({said})", hint=failure.hint) from None

    async def wait(self) -> int:
        """Wait for the gate's report."""
        return await self._link.wait()

    async def signal(self, number: int) -> None:
        """Let the gate signal the command's process group."""
        await self._link.signal(number)

    async def resize(self, rows: int, columns: int) -> None:
        """Let the gate size the terminal."""
        await self._link.resize(rows, columns)

    async def execute(self, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None) -> Execution:
        """Join the sandbox from outside of it (`join.py`); the base refuses where nobody stands there."""
        if self.joinable is None:
            return await super().execute(argv, stdio, terminal)
        from moat.runtimes.bubblewrap_exec import execute

        spec = replace(self.joinable, argv=argv)
        return await execute(self._bwrap, spec, as_run(spec), stdio, has_terminal=terminal is not None)

    async def close(self) -> None:
        """End the gate; it ends the rest, and should it be killed, the kernel does (bwrap --die-with-parent)."""
        await self._end()
        self._complaints.close()

    async def write(self, data: bytes) -> None:
        """Write to the gate."""
        self._writer.write(data)
        await self._writer.drain()

    async def readline(self) -> bytes:
        """Read a line of the gate's."""
        try:
            return await self._reader.readline()
        except ConnectionError:  # a gate that was killed with words of ours unread
            return b""

    async def _end(self) -> None:
        import asyncio

        self._writer.close()
        try:
            async with asyncio.timeout(END_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()


class _Parts:
    """The descriptors of one launch, and the two command lines that use them."""

    def __init__(
        self, stack: contextlib.ExitStack, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, home: Home
    ) -> None:
        self._stack = stack
        self._spec = spec
        self._ticket = ticket
        self._home = home
        self.given: list[int] = []
        self._stdio = tuple(self._keep(os.dup(number)) for number in (stdio.stdin, stdio.stdout, stdio.stderr))

    def outside(self) -> GateConfig:
        """Return a configuration for a gate that is in its namespace already, in which it runs bwrap."""
        before = len(self.given)
        command = as_run(self._spec)
        if self._spec.terminal and Path(SETSID).exists():
            # bwrap's init leads the session, and only a session's leader can take a terminal
            command = (SETSID, "--ctty", "--", *command)
        bwrap = self._bwrap(self._spec, own_network=False)
        config = self._config("entered", str(self._ticket.folder), (*bwrap, *command))
        return replace(config, env={"PATH": os.defpath}, pass_fds=tuple(self.given[before:]))

    def inside(self) -> tuple[list[str], GateConfig]:
        """Return bwrap's command line, with the gate as its command, and a configuration for that gate."""
        python, prefix = (
            os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
            os.path.realpath(sys.base_prefix),
        )
        ours = [Mount(GATE_SOURCE, GATE_INSIDE, read_only=True)]
        ours += [] if prefix.startswith("/usr") else [Mount(Path(prefix), prefix, read_only=True)]
        folder = self._keep(os.open(self._ticket.folder, os.O_PATH | os.O_DIRECTORY))
        spec = replace(self._spec, env={}, mounts=(*self._spec.mounts, *ours))
        bwrap = self._bwrap(spec, own_network=True)
        # The door's folder is not in the view: the gate alone holds it open, and nobody can look into the gate.
        config = self._config("inside", f"/proc/self/fd/{folder}", as_run(self._spec))
        return [*bwrap, python, *GATE_FLAGS, GATE_INSIDE], replace(config, env=self._spec.env)

    def _config(self, place: Literal["entered", "inside"], door: str, argv: tuple[str, ...]) -> GateConfig:
        stdin, stdout, stderr = self._stdio
        return GateConfig(
            run_id=self._spec.run_id,
            nonce=self._ticket.nonce,
            door=door,
            place=place,
            argv=argv,
            stdio=(stdin, stdout, stderr),
            terminal=self._spec.terminal is not None,
            places=self._ticket.places if place == "entered" else (),  # inside, nothing can be shown any more
        )

    def _bwrap(self, spec: SandboxSpec, *, own_network: bool) -> tuple[str, ...]:
        layout = host_layout([mount.target for mount in spec.mounts], home=self._home.root)
        own = {path: text.encode() for path, text in own_files(spec.name).items()}
        files = {path: self._data(content) for path, content in {**layout.copies, **own}.items()}
        filter_fd = self._data(bpf_filter(os.uname().machine))
        options = arguments(spec, layout, files=files, filter_fd=filter_fd, own_network=own_network)
        listed = self._data("".join(f"{option}\0" for option in options).encode())
        return (found("bwrap") or "bwrap", "--args", str(listed), "--")

    def _data(self, content: bytes) -> int:
        descriptor = self._keep(os.memfd_create("moat"))
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _keep(self, descriptor: int) -> int:
        """Take a descriptor over, and return the number that it has from now on."""
        number = kept_high(descriptor)
        os.close(descriptor)
        self._stack.callback(os.close, number)
        self.given.append(number)
        return number


def _check_mounts(spec: SandboxSpec, ticket: DoorTicket) -> None:
    home = _home(ticket)
    check_mounts(spec.mounts, home=home.root, ours=home.inside(spec.run_id), allow_sockets=spec.allow_sockets)


def _give(gate: GateAhead, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> None:
    """Tell a gate what to run once its door is open. Raises SandboxFailed."""
    try:
        gate.open_door(ticket)
        with contextlib.ExitStack() as stack:
            spec = replace(spec, mounts=(*spec.mounts, *mounts_of(ticket.folder, ticket.places)))
            parts = _Parts(stack, spec, ticket, stdio, _home(ticket))
            config = parts.outside()
            gate.give(spec, parts.given, config)
    except BrokenPipeError:
        gate.given = spec  # it has ended, as one does that finds no daemon; what it said of that is still to be read
    except OSError as failure:
        raise not_started(failure) from None


async def _inside(spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio) -> tuple[BubblewrapSandbox, GateConfig]:
    """Return the sandbox that a gate inside is to open, and what that is to be told."""
    with contextlib.ExitStack() as stack:
        parts = _Parts(stack, spec, ticket, stdio, _home(ticket))
        argv, config = parts.inside()
        return await BubblewrapSandbox.inside(argv, parts.given), config


def _home(ticket: DoorTicket) -> Home:
    return Home(ticket.folder.parent.parent)


async def _wire(sock: socket.socket) -> _Wire:
    import asyncio

    return await asyncio.open_connection(sock=sock, limit=LINE_BYTES)


def as_run(spec: SandboxSpec) -> tuple[str, ...]:
    """Return the command as env runs it: bwrap ends with 1 where users expect 127 or 126 (POSIX, 2.8.2)."""
    argv = spec.argv
    named = argv if "=" in argv[0] or not Path(ENV).exists() else (ENV, "--", *argv)
    return rlimits.limited(named, spec.limits.ulimits)
