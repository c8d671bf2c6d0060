from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moat.frames import HEADER, MAX_DESCRIPTORS, FrameChannel, FrameError, Message, encode

Ends = tuple[FrameChannel, socket.socket]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """A channel, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    channel = FrameChannel(ours, limit_bytes=1000)
    yield channel, theirs
    channel.close()
    theirs.close()


async def received(channel: FrameChannel) -> tuple[Message, list[int]] | None:
    async with asyncio.timeout(30):
        return await channel.receive()


def send_descriptors(sock: socket.socket, data: bytes, *descriptors: int) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())])


def copies(sock: socket.socket) -> int:
    """Return how many descriptors of this process are this socket."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            links.append(path.readlink())
    return links.count(Path(f"/proc/self/fd/{sock.fileno()}").readlink())


async def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    channel, peer = ends
    data = encode({"n": 1}) + encode({"n": 2})

    for start in range(0, len(data), 3):
        peer.send(data[start : start + 3])
        await asyncio.sleep(0)

    assert await received(channel) == ({"n": 1}, [])
    assert await received(channel) == ({"n": 2}, [])


async def test_two_channels_understand_each_other_with_descriptors(ends: Ends, tmp_path: Path) -> None:
    channel, peer = ends
    other = FrameChannel(peer.dup())
    file = (tmp_path / "file").open("wb")

    other.send({"plain": True})
    other.send({"file": True}, (file.fileno(),))
    file.close()

    assert await received(channel) == ({"plain": True}, [])
    got = await received(channel)
    assert got is not None
    os.write(got[1][0], b"through")
    os.close(got[1][0])
    assert (tmp_path / "file").read_bytes() == b"through"
    other.close()


async def test_more_than_the_socket_takes_is_queued_and_arrives(ends: Ends) -> None:
    channel, peer = ends
    sender = FrameChannel(peer.dup())

    for number in range(2000):
        sender.send({"n": number, "pad": "x" * 900})

    for number in range(2000):
        got = await received(channel)
        assert got is not None
        assert got[0]["n"] == number
    sender.close()


async def test_the_end_is_none_after_what_came_before_it(ends: Ends) -> None:
    channel, peer = ends
    peer.send(encode({"n": 1}))
    peer.close()

    assert await received(channel) == ({"n": 1}, [])
    assert await received(channel) is None
    assert channel.is_closed


async def test_sending_to_a_peer_that_is_gone_is_silent(ends: Ends) -> None:
    channel, peer = ends
    peer.close()

    channel.send({"n": 1})

    assert await received(channel) is None
    channel.send({"n": 2})


BAD = {
    "over the limit": encode({"pad": "x" * 1000}),
    "no JSON": HEADER.pack(1, 0) + b"{",
    "no UTF-8": HEADER.pack(1, 0) + b"\xff",
    "no object": HEADER.pack(2, 0) + b"[]",
    "descriptors announced that did not come": encode({}, 1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
async def test_what_is_no_frame_ends_the_channel(ends: Ends, data: bytes) -> None:
    channel, peer = ends
    peer.send(data)

    with pytest.raises(FrameError):
        await received(channel)

    assert channel.is_closed


async def test_descriptors_that_nobody_announced_end_the_channel_and_are_closed(ends: Ends) -> None:
    channel, peer = ends
    send_descriptors(peer, encode({}), peer.fileno())

    assert await received(channel) == ({}, [])
    with pytest.raises(FrameError):
        await received(channel)
    assert copies(peer) == 2
    channel.close()

    assert copies(peer) == 1


async def test_more_descriptors_than_fit_end_the_channel(ends: Ends) -> None:
    channel, peer = ends
    count = MAX_DESCRIPTORS + 5
    send_descriptors(peer, encode({}, count), *[peer.fileno()] * count)

    with pytest.raises(FrameError):
        await received(channel)


async def test_closing_closes_descriptors_that_nobody_took(ends: Ends) -> None:
    channel, peer = ends
    send_descriptors(peer, encode({"a": 1}, 2), peer.fileno(), peer.fileno())
    send_descriptors(peer, encode({"b": 1}, 1), peer.fileno())
    got = await received(channel)
    assert got is not None
    for number in got[1]:
        os.close(number)

    channel.close()

    assert copies(peer) == 1


async def test_a_frame_nested_deeper_than_python_goes_is_no_frame() -> None:
    ours, theirs = socket.socketpair()
    channel = FrameChannel(ours)
    body = b"[" * 100_000 + b"]" * 100_000
    with theirs:
        theirs.setblocking(True)
        await asyncio.to_thread(theirs.sendall, HEADER.pack(len(body), 0) + body)

        with pytest.raises(FrameError, match="not JSON"):
            await received(channel)
    channel.close()
