"""The runtime "process": the command as a plain process of the user's, with no isolation at all. Only by name.

It is not sealed: the command can read every file of the user's, and ignore the proxy. It is for trying things out where
nothing else works, and for tests. The run is known to the proxy by its token, which stands in the environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.runtimes.elsewhere import with_proxy

if TYPE_CHECKING:  # this module is imported whenever runtimes are listed
    import asyncio

GRACE_S = 5.0


class Process(Runtime):
    """No isolation."""

    name = "process"
    summary = "a plain process: NO isolation, only the proxy settings; never chosen by itself"
    sealed = False

    async def readiness(self, image: str) -> Readiness:
        """Work everywhere, and say what that is worth."""
        del image
        return Readiness(True, "no isolation: the command can read your files and reach the network without the proxy")

    async def launch(
        self, spec: SandboxSpec, ticket: DoorTicket, stdio: Stdio, created: Callable[[str], Awaitable[None]]
    ) -> Sandbox:
        """Start the command in the workspace's own folder, with a home that is thrown away."""
        await created(str(os.getpid()))
        import asyncio
        import tempfile

        home = Path(tempfile.mkdtemp(prefix="moat-home-"))
        try:
            _fill(home, spec)
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                cwd=_outside(spec.workdir, spec.mounts),
                env=environment(spec, ticket.proxy_url, home),
                stdin=stdio.stdin,
                stdout=stdio.stdout,
                stderr=stdio.stderr,
                start_new_session=True,
                preexec_fn=_take_terminal if spec.terminal else None,
            )
        except OSError as failure:
            _remove(home)
            raise SandboxFailed(f"{spec.argv[0]} cannot be started: {failure.strerror}") from None
        terminal = os.dup(stdio.stdin) if spec.terminal else -1
        return _Running(process, home, terminal)


def environment(spec: SandboxSpec, proxy_url: str, home: Path) -> dict[str, str]:
    """Return the plan's variables with the proxy's real address, and paths inside replaced by those outside. Pure."""
    places = {mount.target: str(mount.source) for mount in spec.mounts} | {spec.home: str(home)}
    changed = {}
    for name, value in spec.env.items():
        changed[name] = _replaced(with_proxy(value, proxy_url), places)  # here the proxy wants the token
    return changed


def _replaced(value: str, places: Mapping[str, str]) -> str:
    """Replace a value that is a path inside, or begins with one; and in options (`-Dname=/path`) the path."""
    for target, source in sorted(places.items(), key=lambda place: -len(place[0])):
        if value == target or value.startswith(f"{target}/"):
            return source + value[len(target) :]
        value = re.sub(rf"(?<==){re.escape(target)}(?=[/\s]|$)", source.replace("\\", r"\\"), value)
    return value


def _outside(path: str, mounts: Iterable[Mount]) -> Path:
    for mount in mounts:
        if PurePosixPath(path).is_relative_to(mount.target):
            return mount.source / PurePosixPath(path).relative_to(mount.target)
    return Path.cwd()


def _fill(home: Path, spec: SandboxSpec) -> None:
    """Copy the files that the plan puts into the home (.curlrc and the like): here nothing can be mounted."""
    for mount in spec.mounts:
        target = PurePosixPath(mount.target)
        if target.is_relative_to(spec.home) and mount.source.is_file():
            place = home / target.relative_to(spec.home)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(mount.source.read_bytes())


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class _Running(Sandbox):
    def __init__(self, process: asyncio.subprocess.Process, home: Path, terminal: int) -> None:
        self._process = process
        self._home = home
        self._terminal = terminal
        self.container_id = str(process.pid)

    async def wait(self) -> int:
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        if self._process.returncode is None:
            await self.signal(signal.SIGTERM)
            await self._end()
        await self.signal(signal.SIGKILL)  # what the command left behind in its group
        _remove(self._home)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    async def _end(self) -> None:
        import asyncio

        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            await self.signal(signal.SIGKILL)
            await self._process.wait()


def _remove(home: Path) -> None:
    import shutil  # not at the top, as above

    shutil.rmtree(home, ignore_errors=True)
