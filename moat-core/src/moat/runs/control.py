"""A run's control socket, `runs/<id>/control.sock`: how other commands of the same user reach whoever launched it.

    client ──{"ask": "attach", "rows", "columns"}──▶      the console's output follows, and keys are taken
           ──{"ask": "wait"}──▶                           nothing but the beginning and the end
           ──{"keys": n, tail} · {"resize": [rows, columns]} · {"signal": n, "grace_s"}──▶
           ◀──{"stream", tail} · {"event": "sealed", "caveat"} · {"event": "ended", "code"}──
           ◀──{"event": "told", "line"}──                    while it is set up
           ◀──{"event": "failed", "problem", "hint", "code"}──
           ──{"ask": "exec", "argv", "size"} + 3 descriptors──▶  one more command in the sandbox, see `execution`

The folder is open to its owner only, so whoever connects is the user. Frames as in `moat.frames`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moat.api.runtimes import Sandbox
from moat.frames import TAIL, FrameChannel, FrameError, Message
from moat.paths import CONTROL_SOCKET, bind_by_folder

if TYPE_CHECKING:  # and below, when a client comes: most runs have none
    from moat.runs.console import Console

PARTING_S = 2.0  # for clients to take the last frames

Noted = Callable[[Any, Mapping[str, str]], Awaitable[None]]  # kind and facts, as `daemon/audit_notes.py` has them
Take = Callable[[int, float | None], None]  # a signal's number, and how long it may take until the command is killed


class Control:
    """Serves one run's clients.

    console: what they may attach to, None for a run whose caller holds its descriptors. first: the client that began
    the run: if it leaves before the seal, nothing is started.
    """

    def __init__(self, console: Console | None = None, first: socket.socket | None = None) -> None:
        self._console = console
        self._first = first
        self._take: Take | None = None
        self._group = asyncio.TaskGroup()
        self._channels: set[FrameChannel] = set()
        self._asking: set[FrameChannel] = set()
        self._is_sealed = False
        self._caveat = ""
        self._sandbox: Sandbox | None = None
        self._folder: Path | None = None
        self._noted: Noted = _unnoted

    @contextlib.asynccontextmanager
    async def talking(self, take: Take) -> AsyncIterator[None]:
        """Talk with clients for as long as the block lasts; the signals that they send go to take."""
        self._take = take
        async with self._group:
            if self._first is not None:
                self._welcome(self._first, is_first=True)
            try:
                yield
            finally:
                for channel in tuple(self._channels):
                    channel.close()  # which ends its talk

    @contextlib.asynccontextmanager
    async def serving(self, folder: Path, noted: Noted | None = None) -> AsyncIterator[None]:
        """Welcome clients on the socket in the run's folder, which exists, for as long as the block lasts.

        noted: has the audit hold who comes.
        """
        self._folder, self._noted, path = folder, noted or _unnoted, folder / CONTROL_SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            bind_by_folder(listener, path)
            path.chmod(0o600)
            listener.listen()
            listener.setblocking(False)
            accepting = self._group.create_task(self._accept(listener))
            try:
                yield
            finally:
                accepting.cancel()
                path.unlink(missing_ok=True)

    def sealed(self, caveat: str, sandbox: Sandbox | None = None) -> None:
        """Tell every client that asked that the run begins; who asks later hears it then.

        sandbox: where clients may have more commands started; None for nowhere.
        """
        self._is_sealed = True
        self._sandbox = sandbox
        self._caveat = caveat
        for channel in self._asking:
            channel.send({"event": "sealed", "caveat": caveat})
        if self._console is not None and self._console.has_terminal and self._take is not None:
            self._take(signal.SIGWINCH, None)  # a window may have changed since the terminal was made

    def tell(self, line: str) -> None:
        """Tell every client that asked what the run waits for; it is not kept for those who ask later."""
        for channel in self._asking:
            channel.send({"event": "told", "line": line})

    async def part(self, last: Message) -> None:
        """Tell every client how the run ended; the last thing it hears."""
        for channel in self._channels:
            channel.send(last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING_S):
                for channel in tuple(self._channels):
                    await channel.drained()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptor left, say: the run matters more than who looks at it
                await asyncio.sleep(0.2)
            else:
                self._welcome(sock)

    def _welcome(self, sock: socket.socket, *, is_first: bool = False) -> None:
        channel = FrameChannel(sock)
        self._channels.add(channel)
        self._group.create_task(self._talk(channel, is_first=is_first))

    async def _talk(self, channel: FrameChannel, *, is_first: bool) -> None:
        from moat.runs.execution import Record, close_all, serve_execution

        has_attached = False
        try:
            while (received := await channel.receive()) is not None:
                message, descriptors = received
                if message.get("ask") == "exec":
                    record = Record(self._folder, self._noted)
                    return await serve_execution(channel, self._sandbox, message, descriptors, record)
                close_all(descriptors)  # nobody else sends any
                if message.get("ask") == "attach" and not is_first:
                    has_attached = True
                    await self._noted("attached", {})
                await self._obey(message, channel)
        except (FrameError, KeyError, TypeError, ValueError):
            pass  # another version's words: it is told nothing, and the run goes on
        finally:
            if self._console is not None:
                self._console.forget(channel)
            self._channels.discard(channel)
            self._asking.discard(channel)
            channel.close()
        if has_attached:
            await self._noted("detached", {})
        if is_first and not self._is_sealed and self._take is not None:
            self._take(signal.SIGHUP, None)

    async def _obey(self, message: Message, channel: FrameChannel) -> None:
        console = self._console
        if "ask" in message:
            self._answer(message, channel)
        elif "keys" in message and console is not None:
            await console.type(message[TAIL])
        elif "resize" in message:
            self._resize(*(int(number) for number in message["resize"]))
        elif "signal" in message and self._take is not None:
            grace_s = message.get("grace_s")
            self._take(int(message["signal"]), None if grace_s is None else float(grace_s))

    def _answer(self, message: Message, channel: FrameChannel) -> None:
        wants_output = message["ask"] == "attach"
        if wants_output and self._console is None:
            channel.send({"event": "refused"})
            return
        self._asking.add(channel)
        if self._is_sealed:
            channel.send({"event": "sealed", "caveat": self._caveat})
        if wants_output and self._console is not None:
            self._console.show_to(channel)
            self._resize(int(message["rows"]), int(message["columns"]))

    def _resize(self, rows: int, columns: int) -> None:
        if self._console is not None and self._console.has_terminal:
            self._console.ask_size(rows, columns)
            if self._is_sealed and self._take is not None:
                self._take(signal.SIGWINCH, None)


async def _unnoted(kind: object, facts: Mapping[str, str]) -> None:
    """Note nothing: nobody else comes to a run without a socket."""
