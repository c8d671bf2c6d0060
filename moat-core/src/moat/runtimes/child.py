"""A child process, waited for by its descriptor (pidfd_open(2)); asyncio's own way is a thread each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Child:
    """One process, in a session of its own: the terminal's signals are for us, who pass on what it needs."""

    def __init__(self, argv: Sequence[str], *, standard: int, complaints: IO[bytes], given: Sequence[int] = ()) -> None:
        """Start it. standard: its input and output. given: descriptors that it gets besides. Raises OSError."""
        self._process = subprocess.Popen(
            argv, stdin=standard, stdout=standard, stderr=complaints, pass_fds=given,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    async def wait(self) -> None:
        """Wait for its end. May be called again, and by several in turn."""
        if self._process.poll() is not None:
            return
        import asyncio  # not at the top: processes are started before anything that takes long to load

        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        descriptor = os.pidfd_open(self.pid)
        loop.add_reader(descriptor, _settle, ended)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._process.wait()

    def kill(self) -> None:
        """Kill it, if it lives."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for its end, blocking: for one that is on its way out."""
        self._process.wait()


def found(program: str) -> str | None:
    """Return where a program is, as shutil.which does, whose module brings three compressors to every start."""
    for folder in os.get_exec_path():
        place = os.path.join(folder, program)  # noqa: PTH118 # before pathlib would be worth its time
        if os.access(place, os.X_OK) and os.path.isfile(place):  # noqa: PTH113 # as above
            return place
    return None


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
