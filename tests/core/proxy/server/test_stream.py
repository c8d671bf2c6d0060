from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop
from moat.proxy.server import stream as stream_module
from moat.proxy.server.stream import HIGH_BYTES, PlainStream, StreamBroken

from core.proxy.server.pairs import plain_pair, until


async def test_bytes_stand_in_the_buffer_until_they_are_cut_off() -> None:
    ours, theirs = await plain_pair()
    theirs.write(b"hello")

    assert await ours.more()
    assert ours.buffer == b"hello"
    theirs.close()
    assert not await ours.more()
    assert ours.is_over
    ours.close()


async def test_reading_pauses_at_the_bound_and_goes_on_with_the_next_more() -> None:
    ours, theirs = await plain_pair()
    theirs.write(b"x" * (4 * HIGH_BYTES))
    await until(lambda: len(ours.buffer) >= HIGH_BYTES)
    await asyncio.sleep(0)

    assert len(ours.buffer) < 2 * HIGH_BYTES
    taken = 0
    while taken < 4 * HIGH_BYTES:
        taken += len(ours.buffer)
        ours.buffer.clear()
        if taken < 4 * HIGH_BYTES:
            assert await ours.more()
    ours.close()
    theirs.close()


async def test_drain_waits_for_a_slow_reader_and_fails_when_it_is_gone() -> None:
    ours, theirs = await plain_pair()
    ours.write(b"x" * (8 * HIGH_BYTES))
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(_drain(ours))
        await asyncio.sleep(0)
        assert not draining.done()
        theirs.abort()

    assert draining.result() == "broken"


async def test_going_away_is_told_once_even_while_nobody_reads() -> None:
    ours, theirs = await plain_pair()
    calls: list[str] = []
    ours.on_gone(lambda: calls.append("gone"))
    theirs.close()
    await until(lambda: ours.is_over)
    ours.on_gone(lambda: calls.append("already gone"))

    assert calls == ["gone", "already gone"]
    ours.close()


async def test_writing_to_a_lost_connection_is_swallowed() -> None:
    ours, theirs = await plain_pair()
    ours.abort()
    theirs.close()
    await until(lambda: ours.is_over)

    ours.write(b"late")


async def test_an_unconnected_stream_has_no_transport() -> None:
    with pytest.raises(StreamBroken):
        _ = PlainStream().transport


async def _drain(stream: PlainStream) -> str:
    try:
        await stream.drain()
    except StreamBroken:
        return "broken"
    return "drained"


async def _end_after_a_reset() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    _, stream = await loop.connect_accepted_socket(PlainStream, accepted)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()  # a reset; the loop has not had a turn to see it

    stream.end()

    with pytest.raises(StreamBroken):
        await stream.more()


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_ending_a_connection_that_was_reset_just_now_is_no_error_and_the_reset_is_told(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_end_after_a_reset())


async def test_a_close_lasts_until_the_peer_has_what_was_queued() -> None:
    ours, theirs = await plain_pair()
    theirs.pause()
    ours.write(bytes(4 * HIGH_BYTES))
    ours.close()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        closing = group.create_task(ours.closed())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()

        received = 0
        while await theirs.more():
            received += len(theirs.buffer)
            theirs.buffer.clear()
    assert received == 4 * HIGH_BYTES
    theirs.abort()


async def test_a_peer_that_takes_nothing_of_what_is_left_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "UNTAKEN_S", 0.1)
    ours, theirs = await plain_pair()
    theirs.pause()
    ours.write(bytes(4 * HIGH_BYTES))
    ours.close()
    async with asyncio.timeout(30):
        await ours.closed()
    assert ours.untaken() == 0

    theirs.abort()


async def test_a_peer_that_takes_what_is_left_slowly_is_not_cut_off() -> None:
    mine, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    _, ours = await loop.connect_accepted_socket(PlainStream, mine)
    ours.write(bytes(4 * HIGH_BYTES))
    ours.close()
    now, late = loop.time(), 0
    while (before := ours.untaken()) > 2 * HIGH_BYTES:
        while ours.untaken() >= before:  # the kernel counts its own pieces
            with contextlib.suppress(BlockingIOError):
                theirs.recv(65_536)
            await asyncio.sleep(0)
        late += 1
        assert ours.look(now + late * stream_module.UNTAKEN_S) < math.inf
    assert ours.look(now + (late + 1) * stream_module.UNTAKEN_S) == math.inf  # it took nothing since

    theirs.close()
    await until(lambda: ours.untaken() == 0)


async def test_what_is_untaken_counts_the_kernels_part() -> None:
    ours, theirs = await plain_pair()
    theirs.pause()
    ours.write(b"12345")
    await asyncio.sleep(0)
    await until(lambda: ours.untaken() > 0)
    theirs.abort()
    await until(lambda: ours.untaken() == 0)
    ours.abort()
