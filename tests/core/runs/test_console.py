from __future__ import annotations

import asyncio
import os
import socket
import termios
import time
from pathlib import Path

import pytest
from moat.frames import TAIL, FrameChannel
from moat.runs.console import BACKLOG_BYTES, Console, Shape
from moat.runs.journal import FILE_NAME, Journal, read_entries


def pair() -> tuple[FrameChannel, FrameChannel]:
    ours, theirs = socket.socketpair()
    return FrameChannel(ours), FrameChannel(theirs)


async def next_of(channel: FrameChannel) -> tuple[str, bytes]:
    async with asyncio.timeout(30):
        received = await channel.receive()
    assert received is not None
    return received[0]["stream"], received[0][TAIL]


def kept(folder: Path) -> str:
    return "".join(each.text for each in read_entries((folder / FILE_NAME).read_text().splitlines()))


async def test_pipes_reach_the_journal_and_every_viewer(tmp_path: Path) -> None:
    console, (viewer, client) = Console(Shape(), Journal(tmp_path)), pair()
    with console:
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(console.carry())
            console.show_to(viewer)
            os.write(console.stdio.stderr, b"oh\n")
            assert await next_of(client) == ("stderr", b"oh\n")
            assert os.read(console.stdio.stdin, 1) == b""
            carrying.cancel()
        os.write(console.stdio.stdout, b"last\n")  # after the last look
    assert await next_of(client) == ("stdout", b"last\n")
    assert kept(tmp_path) == "oh\nlast\n"
    for channel in (viewer, client):
        channel.close()


async def test_what_is_kept_of_a_run_that_has_said_nothing_yet_is_nothing(tmp_path: Path) -> None:
    with Console(Shape(), Journal(tmp_path)):
        assert kept(tmp_path) == ""


async def test_who_attaches_later_sees_the_last_bytes_and_no_more_than_them(tmp_path: Path) -> None:
    console, (viewer, client) = Console(Shape(), Journal(tmp_path)), pair()
    with console:
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(console.carry())
            written = 0
            while written < 4 * BACKLOG_BYTES:
                written += await asyncio.to_thread(os.write, console.stdio.stdout, b"x" * 4096)
            await asyncio.to_thread(os.write, console.stdio.stdout, b"the end")
            while not kept(tmp_path).endswith("the end"):  # noqa: ASYNC110 # a file tells nobody
                await asyncio.sleep(0.01)
            console.show_to(viewer)
            seen = b""
            while not seen.endswith(b"the end"):
                seen += (await next_of(client))[1]
            carrying.cancel()
    assert len(seen) <= BACKLOG_BYTES
    for channel in (viewer, client):
        channel.close()


async def test_keys_are_typed_and_the_terminal_has_the_viewers_size(tmp_path: Path) -> None:
    console, (viewer, client) = Console(Shape((24, 80)), Journal(tmp_path)), pair()
    with console:
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(console.carry())
            console.show_to(viewer)
            console.ask_size(33, 99)
            assert console.resize() == (33, 99)
            assert termios.tcgetwinsize(console.stdio.stdin) == (33, 99)
            await console.type(b"hello\n")
            assert await asyncio.to_thread(os.read, console.stdio.stdin, 100) == b"hello\n"
            assert await next_of(client) == ("terminal", b"hello\r\n")  # the echo
            carrying.cancel()
    for channel in (viewer, client):
        channel.close()


async def test_the_run_waits_for_a_viewer_that_does_not_read_and_for_none_that_is_gone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    console, viewer = Console(Shape(), Journal(tmp_path)), FrameChannel(ours)
    with console:
        os.set_blocking(console.stdio.stdout, False)
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(console.carry())
            console.show_to(viewer)
            assert await poured(console, 8_000_000) < 8_000_000  # only what fits into buffers: theirs is never read
            theirs.close()
            assert await poured(console, 2_000_000, patience_s=30) >= 2_000_000
            carrying.cancel()
    viewer.close()


async def poured(console: Console, limit: int, patience_s: float = 0.5) -> int:
    """Write until nothing has fitted for so long, or to the limit; return how many bytes went."""
    written, last = 0, time.monotonic()
    while time.monotonic() - last < patience_s and written < limit:
        try:
            written += os.write(console.stdio.stdout, b"x" * 4096)
            last = time.monotonic()
        except BlockingIOError:
            await asyncio.sleep(0.01)
    return written


async def test_descriptors_of_the_callers_are_given_as_they_are(tmp_path: Path) -> None:
    read, write = os.pipe()
    with Console(Shape((24, 80), None, {1: write}), Journal(tmp_path)) as console:
        stdio = console.stdio
        assert stdio.stdout == write
        assert os.isatty(stdio.stdin)
        assert os.isatty(stdio.stderr)
    os.close(read)
    os.close(write)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("shape", [Shape(), Shape((24, 80))])
async def test_nothing_stays_open(tmp_path: Path, shape: Shape) -> None:
    before = open_descriptors()
    with Console(shape, Journal(tmp_path)) as console:
        os.write(console.stdio.stdout, b"x")
    assert open_descriptors() == before
