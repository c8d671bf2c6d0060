"""When does a process end? Asked for runs without a door, whose only sign of life it is. Polls nothing."""

from __future__ import annotations

import asyncio
import os

from moat.daemon.process import start_time


async def process_end(process_id: str, began: int = 0) -> None:
    """Return when the process ends, or at once if it has ended; what is no process id never does.

    began: when it started, in clock ticks after boot; another process with its id is not it.
    """
    if not is_process_id(process_id):
        await asyncio.get_running_loop().create_future()
    try:
        handle = os.pidfd_open(int(process_id))
    except (OSError, ValueError, OverflowError):
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(handle, _settle, ended)
    try:
        if not began or start_time(int(process_id)) == began:  # asked after the handle is held
            await ended
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def is_process_id(text: str) -> bool:
    """Return whether text can be the id of a process, and not of a container."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
