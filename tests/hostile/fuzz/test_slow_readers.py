"""Who does not read makes the other side stop: what waits in between has a bound, in bytes, and none of it is lost."""

from __future__ import annotations

import asyncio
import gc
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from moat.proxy.server.stream import PlainStream
from moat.proxy.server.tls import TlsStream
from support import strict
from support.strict import Message
from support.wire import Peer

from hostile.fuzz.frames import PREFACE, SETTINGS, block, frame
from hostile.fuzz.over_http2 import Said, Upstream
from hostile.fuzz.stage import API, OTHER, PLAIN, SECRET, Stage, a_stage
from hostile.fuzz.test_http2_garbage import H2_ONLY

PIECE = (SECRET.encode() + b"-" * 47) * 938  # below 64 KiB, what one length of a websocket's frame can say
SILENCE = 3_000  # turns of the loop without a byte taken
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


OURS = 2 * 1_048_576  # in the proxy: a few buffers of 256 KiB, what is decoded of one, and TLS around them
KERNELS = 2 * sum(int(Path(f"/proc/sys/net/ipv4/tcp_{end}mem").read_text().split()[2]) for end in "rw")
BOUND = OURS + KERNELS  # what the sockets of two connections hold at most besides
MANY = 2 * BOUND // len(PIECE)  # pieces, if nobody ever says stop


def waiting() -> int:
    """Return how many bytes the proxy's streams hold."""
    streams = [each for each in gc.get_objects() if isinstance(each, PlainStream | TlsStream)]
    plain = [each for each in streams if isinstance(each, PlainStream) and each._transport is not None]
    secure = [each for each in streams if isinstance(each, TlsStream)]
    return (
        sum(len(each.buffer) for each in streams)
        + sum(each.transport.get_write_buffer_size() for each in plain)
        + sum(each._incoming.pending + each._outgoing.pending for each in secure)
    )


def upgrading(name: str, message: Message) -> Iterable[bytes]:
    """An upstream that upgrades whoever wants it, and says nothing else by itself."""
    del name
    return (SWITCHED,) if message.all(b"upgrade") else ()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with a_stage(upgrading) as made:
        yield made


async def flooded(sender: Peer, words: Callable[[], bytes]) -> list[bytes]:
    """Have sender say what words returns, again and again till nobody takes any more; return what was said."""
    said: list[bytes] = []
    still = 0
    while len(said) < MANY and still < SILENCE:
        if sender.waiting:
            still += 1
            await asyncio.sleep(0)
        else:
            still = 0
            said.append(words())
            sender.write(said[-1])
    assert sum(map(len, said)) < BOUND
    assert waiting() < OURS
    return said


async def upgraded(stage: Stage, host: str) -> tuple[Peer, Peer]:
    """Return both ends of a websocket."""
    peer = await stage.client(host)
    await peer.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    await stage.until(lambda: peer.data.endswith(SWITCHED))
    peer.data.clear()
    stage.seen[-1].hush()
    return peer, stage.seen[-1]


@pytest.mark.parametrize("host", [API, OTHER], ids=["scrubbed", "as it is"])
async def test_a_client_of_a_websocket_that_does_not_read_stops_the_service(stage: Stage, host: str) -> None:
    peer, service = await upgraded(stage, host)
    peer.pause()
    said = await flooded(service, lambda: b"\x82\x7e" + len(PIECE).to_bytes(2) + PIECE)

    peer.resume()
    whole = b"".join(said)
    await stage.until(lambda: len(peer.data) >= len(whole))
    assert peer.data == (whole if host == OTHER else whole.replace(SECRET.encode(), b"[moat:redacted**]"))


@pytest.mark.parametrize("host", [API, OTHER], ids=["scrubbed", "as it is"])
async def test_a_service_of_a_websocket_that_does_not_read_stops_the_client(stage: Stage, host: str) -> None:
    peer, service = await upgraded(stage, host)
    service.pause()
    before = len(service.data)
    said = await flooded(peer, lambda: b"\x82\xfe" + len(PIECE).to_bytes(2) + b"mask" + PIECE)

    service.resume()
    whole = b"".join(said)
    await stage.until(lambda: len(service.data) - before >= len(whole))
    assert service.data[before:] == whole


async def begun(stage: Stage, packer: zlib._Compress) -> Peer:
    """Have the service begin a body in gzip, which ends with its connection; return it."""
    await stage.quiet()
    service = stage.seen[-1]
    service.hush()
    await service.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + packer.compress(b"begun"))
    await stage.quiet()
    return service


def packed(packer: zlib._Compress) -> bytes:
    return packer.compress(PIECE) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("host", [API, OTHER], ids=["decoded and scrubbed", "as it is"])
async def test_a_client_that_does_not_read_an_answer_stops_the_service(stage: Stage, host: str) -> None:
    packer = zlib.compressobj(0, wbits=31)
    peer = await stage.client(host)
    await peer.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    service = await begun(stage, packer)
    peer.pause()
    said = await flooded(service, partial(packed, packer))

    peer.resume()
    await service.send(packer.flush())
    service.close()
    await stage.until(lambda: peer.data.endswith(b"\r\n0\r\n\r\n"))
    (answer,) = strict.answers(bytes(peer.data), [b"GET"], ended=False).messages
    assert answer.is_whole
    body = answer.body if host == API else gzip.decompress(answer.body)
    piece = PIECE.replace(SECRET.encode(), b"[moat:redacted**]") if host == API else PIECE
    assert body == b"begun" + piece * len(said)


async def test_a_client_of_http_2_that_gives_no_room_stops_the_service(stage: Stage) -> None:
    packer = zlib.compressobj(0, wbits=31)
    head = block([(":method", "GET"), (":scheme", "https"), (":authority", API), (":path", "/")])
    peer = await stage.client(API, (), H2_ONLY)
    await peer.send(PREFACE + SETTINGS + frame(1, 5, 1, head))
    service = await begun(stage, packer)
    said = await flooded(service, partial(packed, packer))

    assert sum(map(len, said)) < BOUND - KERNELS // 2  # nothing waits in the client's connection
    assert len(peer.data) < 2 * 65_536


@pytest.mark.parametrize("host", [API, OTHER, PLAIN])
@pytest.mark.parametrize("size", [262_144, 512_000, 1_024_000, 2_000_000])
async def test_a_client_that_goes_after_a_long_body_is_seen_to_go(stage: Stage, host: str, size: int) -> None:
    peer = await posting(stage, host, size)
    service = stage.seen[-1]
    before = len(service.data)
    service.hush()
    await peer.send(bytes(size))
    await stage.until(lambda: len(service.data) == before + size)
    peer.close()

    await stage.until(lambda: bool(stage.guest.records))
    assert stage.guest.records[-1].reason == "the client went away"


@pytest.mark.parametrize("size", [262_144, 512_000, 1_024_000, 2_000_000])
async def test_so_it_is_where_the_service_speaks_http_2(size: int) -> None:
    upstream = Upstream({b"/": Said("")})
    async with a_stage(upgrading, upstream) as stage:
        upstream.stage = stage
        peer = await posting(stage, OTHER, size)
        await peer.send(bytes(size))
        await stage.until(lambda: upstream.requests[0].is_whole)
        peer.close()

        await stage.until(lambda: bool(stage.guest.records))
        assert stage.guest.records[-1].reason == "the client went away"


async def posting(stage: Stage, host: str, size: int) -> Peer:
    """Return a client that is about to send a body."""
    peer = await stage.client("" if host == PLAIN else host)
    target = f"http://{PLAIN}/" if host == PLAIN else "/"
    await peer.send(f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode())
    await stage.quiet()
    return peer
