"""When does a process end? Asked for runs without a door, whose only sign of life it is. Polls nothing."""

from __future__ import annotations

import asyncio
import os


async def process_end(process_id: str) -> None:
    """Return when the process ends, or at once if it has ended; what is no process id never does."""
    if not (process_id.isascii() and process_id.isdigit() and len(process_id) < 10):
        await asyncio.get_running_loop().create_future()
    try:
        handle = os.pidfd_open(int(process_id))
    except (OSError, ValueError, OverflowError):
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(handle, _settle, ended)
    try:
        await ended
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
