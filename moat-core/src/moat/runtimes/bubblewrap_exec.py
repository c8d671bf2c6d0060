"""One more command in a run of bwrap's: found, joined by a process of its own (`join.py`), signalled, ended.

bwrap ─▶ its child, process 1 inside, whose own child says that the sandbox is finished ─▶ pidfd ─▶ join.py
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moat.api.errors import SandboxFailed
from moat.api.runtimes import Execution, SandboxSpec, Stdio
from moat.runtimes.gatelink import GATE_FLAGS
from moat.runtimes.seccomp import bpf_filter

SOURCE = Path(__file__).with_name("join.py")
FINISHED_S, POLL_S = 10.0, 0.02  # until bwrap has made the sandbox: milliseconds, unless the machine is thrashing
START_S = 10.0
END_S = 5.0
A_TERMINAL = {"TERM": "xterm"}  # as engines say, where the run, which may have none, does not know better
KILLED = 128 + signal.SIGKILL


async def execute(bwrap: int, spec: SandboxSpec, argv: tuple[str, ...], stdio: Stdio, *, has_terminal: bool) -> Joined:
    """Start argv in the sandbox that bwrap, a process of ours, has made. argv: as `spec`'s own command is run.

    Raises SandboxFailed when it cannot be joined, or has ended.
    """
    with contextlib.ExitStack() as stack:
        init = await _finished(bwrap)
        sandbox = _held(stack, _pidfd_of(init, bwrap))
        rules = _held(stack, os.memfd_create("moat-filter", os.MFD_CLOEXEC))
        os.write(rules, bpf_filter(platform.machine()))
        given = tuple(_held(stack, os.dup(number)) for number in (stdio.stdin, stdio.stdout, stdio.stderr))
        config = {
            "sandbox": sandbox, "pid": init, "filter": rules, "stdio": given, "argv": argv, "workdir": spec.workdir,
            "env": {**(A_TERMINAL if has_terminal else {}), **spec.env, "PWD": spec.workdir}, "terminal": has_terminal,
        }  # fmt: skip
        joined = await Joined.start((sandbox, rules, *given))
    try:
        await joined.begun(config)
    except BaseException:
        await joined.close()
        raise
    return joined


class Joined(Execution):
    """A command in a sandbox, and the process outside that is its parent."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, given: tuple[int, ...]) -> Joined:
        """Start the parent, in a session of its own."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *GATE_FLAGS,
                str(SOURCE),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=given,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        return cls(process, *(await asyncio.open_connection(sock=ours)))

    async def begun(self, config: Mapping[str, Any]) -> None:
        """Say what to start, and wait until it is. Raises SandboxFailed."""
        self._send(config)
        try:
            async with asyncio.timeout(START_S):
                event = await self._event()
        except TimeoutError:
            event = {}
        if event.get("event") != "started":
            problem = event.get("problem") or "who should start it does not answer"
            hint = "give the run a terminal (moat run -dt), and start from a shell in it"
            raise SandboxFailed(f"no command can be started in this sandbox: {problem}", hint=hint)

    async def wait(self) -> int:
        """Return the exit code; 137 too when the run ends before."""
        return int((await self._event()).get("code", KILLED))

    async def signal(self, number: int) -> None:
        """Have the command's process group signalled."""
        self._send({"signal": int(number)})

    async def resize(self, rows: int, columns: int) -> None:
        """Do nothing: its terminal is the client's pseudo-terminal, whose size the client sets."""
        del rows, columns

    async def close(self) -> None:
        """End the parent, which kills what is left of the process group; should it be killed, the kernel kills."""
        self._writer.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _event(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            event = json.loads(await self._reader.readline())
            return event if isinstance(event, dict) else {}
        return {}


async def _finished(bwrap: int) -> int:
    """Return process 1 of the sandbox once its own child runs: then nothing of it will change. Raises SandboxFailed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FINISHED_S):
            while (init := next(iter(_children(bwrap)), 0)) == 0 or not _children(init):
                if not _is_there(bwrap):
                    break
                await asyncio.sleep(POLL_S)
            else:
                return init
    raise SandboxFailed("the run's command does not run (any more)", hint="run: moat list")


def _pidfd_of(init: int, bwrap: int) -> int:
    """Return a descriptor of a child of bwrap's, and not of a process that has got its number since."""
    try:
        descriptor = os.pidfd_open(init)
    except ProcessLookupError:
        raise SandboxFailed("the run has ended", hint="run: moat list") from None
    if init not in _children(bwrap):
        os.close(descriptor)
        raise SandboxFailed("the run has ended", hint="run: moat list")
    return descriptor


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _held(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
