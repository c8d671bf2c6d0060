"""What Ctrl-C, SIGTERM and SIGHUP do to a run: before its command starts they cancel, afterwards they stop the command.

nothing started ── any signal ──▶ cancelled, undone
command runs ── first ──▶ forwarded ── GRACE_S or a second ──▶ killed
             ── window resized ──▶ told
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator

from moat.api.errors import MoatError
from moat.api.runtimes import Sandbox

GRACE_S = 10.0  # what `docker stop` gives, so that programs are used to it
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The signals of one run. number: the first that asked to stop, else None."""

    def __init__(self, resize: Callable[[], tuple[int, int] | None], *, grace_s: float = GRACE_S) -> None:
        self.number: int | None = None
        self._resize = resize
        self._grace_s = grace_s
        self._waiting: asyncio.Queue[int] = asyncio.Queue()
        self._starter: asyncio.Task[object] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over; until supervise is called they cancel the current task.

        A signal that the caller ignores (nohup, a shell's background job) stays ignored.
        """
        loop = asyncio.get_running_loop()
        self._starter = asyncio.current_task()
        taken = [each for each in (*STOPPING, signal.SIGWINCH) if signal.getsignal(each) is not signal.SIG_IGN]
        for number in taken:
            loop.add_signal_handler(number, self.take, int(number))
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def take(self, number: int, grace_s: float | None = None) -> None:
        """Take one signal. grace_s: how long the command has to end before it is killed, instead of the usual."""
        if grace_s is not None:
            self._grace_s = grace_s
        if self._starter is None or number == signal.SIGWINCH:
            self._waiting.put_nowait(number)
        elif self.number is None:
            self._starter.cancel()  # once: what it undoes must not be cancelled again
        if number != signal.SIGWINCH and self.number is None:
            self.number = number

    async def supervise(self, sandbox: Sandbox, *beside: Coroutine[object, object, None]) -> int:
        """Wait for the command while signals are obeyed; return its exit code. Raises like Sandbox.wait.

        beside: what else goes on as long as the command runs.
        """
        self._starter = None
        code, failure = 0, None
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(each) for each in (self._obey(sandbox), *beside)]
            try:
                code = await sandbox.wait()
            except MoatError as lost:
                failure = lost  # raised below: the group would wrap it
            finally:
                for other in others:
                    other.cancel()
        if failure is not None:
            raise failure
        return code

    async def _obey(self, sandbox: Sandbox) -> None:
        deadline: float | None = None
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    number = await self._waiting.get()
            except TimeoutError:
                number = None
            if number == signal.SIGWINCH:
                if size := self._resize():
                    await sandbox.resize(*size)
            elif number is None or deadline is not None:
                await sandbox.signal(signal.SIGKILL)
                deadline = None
            else:
                await sandbox.signal(number)
                deadline = asyncio.get_running_loop().time() + self._grace_s
