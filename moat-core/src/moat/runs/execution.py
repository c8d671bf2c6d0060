"""Serves `moat exec` at a run's control socket: starts one more command in the sandbox and watches over it.

    client ──{"ask": "exec", "argv": […], "size": [rows, columns] | null} + its three descriptors──▶
           ◀──{"event": "started"}── or ◀──{"event": "failed", "problem", "hint", "code"}──
           ──{"signal": n} · {"resize": [rows, columns]}──▶
           ◀──{"event": "exited", "code"}──

A client that goes ends its command. Each is recorded in `runs/<id>/executions.jsonl` and in the audit: when, which
program, its end; not its arguments, which may be secret. By whom needs no telling: only the run's own user reaches the
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from moat.api.errors import MoatError, SandboxFailed
from moat.api.runtimes import Execution, Sandbox, Stdio
from moat.frames import FrameChannel, FrameError, Message
from moat.paths import UNWRITABLE

FILE_NAME = "executions.jsonl"
LEFT_GRACE_S = 5.0  # between asking a command whose client is gone to end, and killing it


@dataclass(frozen=True, slots=True)
class Record:
    """Where what is done is written down. folder: the run's, None for nowhere. noted: has the audit hold it."""

    folder: Path | None = None
    noted: Callable[[Any, Mapping[str, str]], Awaitable[None]] | None = None

    async def add(self, event: Literal["started", "ended"], program: str, facts: Mapping[str, Any]) -> None:
        """Write one event down."""
        _note(self.folder, {"event": event, "program": program, **facts})
        if self.noted is not None:
            told = {name: str(value).lower() for name, value in facts.items()}
            await self.noted("exec" if event == "started" else "exec-ended", {"program": program, **told})


async def serve_execution(
    channel: FrameChannel, sandbox: Sandbox | None, asked: Message, descriptors: list[int], record: Record
) -> None:
    """Do what one client asks, to its end. sandbox: None before the seal.

    Takes the descriptors over. Raises ValueError, KeyError or TypeError for what cannot be understood.
    """
    try:
        argv, size = tuple(str(word) for word in asked["argv"]), asked["size"]
        stdin, stdout, stderr = descriptors
        program, terminal = argv[0], None if size is None else (int(size[0]), int(size[1]))
        execution = await _started(sandbox, argv, Stdio(stdin, stdout, stderr), terminal)
    except MoatError as failure:
        return _tell_failure(channel, failure)
    except IndexError:
        raise ValueError("too few words") from None
    finally:
        close_all(descriptors)
    code: int | None = None
    try:
        await record.add("started", program, {"terminal": terminal is not None})
        channel.send({"event": "started"})
        code = await _attended(channel, execution, signal.SIGTERM if terminal is None else signal.SIGHUP)
    except MoatError as failure:
        _tell_failure(channel, failure)
    finally:
        await execution.close()
        await record.add("ended", program, {"code": code})
    if code is not None:
        channel.send({"event": "exited", "code": code})


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that a client sent."""
    for descriptor in descriptors:
        os.close(descriptor)


async def _started(
    sandbox: Sandbox | None, argv: tuple[str, ...], stdio: Stdio, terminal: tuple[int, int] | None
) -> Execution:
    if sandbox is None:
        raise SandboxFailed("the run has not begun yet", hint="try again in a moment")
    return await sandbox.execute(argv, stdio, terminal)


async def _attended(channel: FrameChannel, execution: Execution, last: int) -> int:
    """Wait for the command while its client is obeyed; return its exit code. last: what it gets when that goes."""
    code, failure = 0, None
    async with asyncio.TaskGroup() as group:
        obeying = group.create_task(_obey(channel, execution, last))
        try:
            code = await execution.wait()
        except MoatError as lost:
            failure = lost  # raised below: the group would wrap it
        finally:
            obeying.cancel()
    if failure is not None:
        raise failure
    return code


async def _obey(channel: FrameChannel, execution: Execution, last: int) -> None:
    with contextlib.suppress(FrameError, KeyError, TypeError, ValueError):  # garbage is as good as gone
        while (received := await channel.receive()) is not None:
            close_all(received[1])
            if "signal" in received[0]:
                await execution.signal(int(received[0]["signal"]))
            elif "resize" in received[0]:
                rows, columns = received[0]["resize"]
                await execution.resize(int(rows), int(columns))
    await execution.signal(last)
    await asyncio.sleep(LEFT_GRACE_S)
    await execution.signal(signal.SIGKILL)


def _tell_failure(channel: FrameChannel, failure: MoatError) -> None:
    message = {"event": "failed", "problem": failure.problem, "hint": failure.hint, "code": failure.exit_code}
    channel.send(message)


def _note(folder: Path | None, entry: Message) -> None:
    """Add one line to the record. A disk that says no does not stop the user from looking after a run."""
    if folder is None:
        return
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}) + "\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(*UNWRITABLE):
        descriptor = os.open(folder / FILE_NAME, flags, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
