"""The command line's side of `moat exec`, against a holder made of a socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest
from moat.api.errors import MoatError, SandboxFailed
from moat.api.runtimes import Stdio
from moat.frames import FrameChannel, Message
from moat.runs.attach import Attachment
from moat.runs.execute import RUN_ENDED, execute
from moat.runs.viewer import RunFailed


@contextlib.asynccontextmanager
async def asked() -> AsyncIterator[tuple[FrameChannel, asyncio.Task[int | MoatError]]]:
    """Ask for `true`; yield the holder's end, after its question was read, and what will come of it."""
    ours, theirs = socket.socketpair()
    nothing = os.open(os.devnull, os.O_RDWR)
    holder = FrameChannel(theirs)

    async def outcome() -> int | MoatError:
        try:
            return await execute(ours, ("true",), Attachment(Stdio(nothing, nothing, nothing)), None)
        except MoatError as failure:
            return failure

    try:
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            asking = group.create_task(outcome())
            received = await holder.receive()
            assert received is not None
            assert received[0] == {"ask": "exec", "argv": ["true"], "size": None}
            assert len(received[1]) == 3
            for number in received[1]:
                os.close(number)
            yield holder, asking
    finally:
        holder.close()
        os.close(nothing)


async def test_the_exit_code_is_the_commands() -> None:
    async with asked() as (holder, asking):
        holder.send({"event": "started"})
        holder.send({"event": "exited", "code": 9})
        assert await asking == 9


async def test_the_first_signal_is_handed_on_and_the_second_kills() -> None:
    async with asked() as (holder, asking):
        holder.send({"event": "started"})
        numbers = []
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            received = await holder.receive()
            assert received is not None
            numbers.append(received[0]["signal"])
        assert numbers == [signal.SIGINT, signal.SIGKILL]
        holder.send({"event": "exited", "code": 137})
        assert await asking == 137


async def test_a_run_that_ends_meanwhile_has_killed_the_command() -> None:
    async with asked() as (holder, asking):
        holder.send({"event": "ended", "code": 0})
        holder.close()
        assert await asking == RUN_ENDED


@pytest.mark.parametrize(
    ("message", "kind", "problem"),
    [
        ({"event": "failed", "problem": "no", "hint": "x", "code": 1}, RunFailed, "no"),
        ({"event": "sealed", "caveat": ""}, SandboxFailed, "another version of moat"),
        ({"other": "words"}, SandboxFailed, "another version of moat"),
        (None, SandboxFailed, "whoever holds the run is gone"),
    ],
    ids=["refused", "a holder that knows no exec", "garbage", "gone"],
)
async def test_what_goes_wrong_is_said(message: Message | None, kind: type[MoatError], problem: str) -> None:
    async with asked() as (holder, asking):
        if message is not None:
            holder.send(message)
            await holder.drained()
        else:
            holder.close()
        failure = await asking
        assert isinstance(failure, kind)
        assert problem in failure.problem
