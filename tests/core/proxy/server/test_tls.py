from __future__ import annotations

import asyncio
import ssl

import pytest
from moat.proxy.server.stream import StreamBroken, within
from moat.proxy.server.tls import TlsStream

from core.proxy.server.pairs import LEAVES, plain_pair, tls_pair, until


async def test_megabytes_pass_without_a_stall() -> None:
    client, server = await tls_pair()
    size, seen = 3_000_000, 0
    async with asyncio.TaskGroup() as group:
        group.create_task(_write(client, b"x" * size))
        while seen < size:
            assert await server.more()
            seen += len(server.buffer)
            server.buffer.clear()

    assert seen == size
    client.close()
    server.close()


async def test_an_end_is_told_from_nothing() -> None:
    client, server = await tls_pair()
    client.write(b"last words")
    client.close()

    assert await server.more()
    assert server.buffer == b"last words"
    assert not await server.more()
    assert server.is_over
    server.close()


async def test_an_end_without_a_goodbye_is_a_break() -> None:
    client, server = await tls_pair()
    client.write(b"last words")
    client._below.end()

    assert await server.more()
    with pytest.raises(StreamBroken, match="cut"):
        await server.more()
    server.abort()
    client.abort()


async def test_bytes_that_are_no_tls_break_the_handshake() -> None:
    theirs, ours = await plain_pair()
    server = TlsStream(ours, LEAVES.context("a.example"))
    theirs.write(b"GET / HTTP/1.1\r\n\r\n")

    with pytest.raises(ssl.SSLError):
        await server.handshake()
    server.abort()
    theirs.abort()


async def test_a_hello_in_single_bytes_is_still_understood() -> None:
    theirs, ours = await plain_pair()
    server = TlsStream(ours, LEAVES.context("a.example"))
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with asyncio.TaskGroup() as group:
        shaking = group.create_task(server.handshake())
        for byte in outgoing.read():
            theirs.write(bytes((byte,)))
            await asyncio.sleep(0)
        await until(lambda: bool(theirs.buffer))
        shaking.cancel()

    assert theirs.buffer[0] == 0x16
    assert theirs.buffer[5] == 2  # a ServerHello, not an alert
    server.abort()
    theirs.abort()


async def test_an_end_in_the_handshake_is_a_broken_stream() -> None:
    theirs, ours = await plain_pair()
    theirs.close()

    with pytest.raises(StreamBroken):
        await TlsStream(ours, LEAVES.context("a.example")).handshake()
    ours.abort()


async def test_going_away_below_is_told() -> None:
    client, server = await tls_pair()
    gone: list[bool] = []
    server.on_gone(lambda: gone.append(True))
    client.abort()
    await until(lambda: bool(gone))

    assert server.is_over
    server.abort()


async def _write(stream: TlsStream, data: bytes) -> None:
    for at in range(0, len(data), 50_000):
        stream.write(data[at : at + 50_000])
        await stream.drain()


async def test_what_came_unasked_is_seen_without_waiting_and_tickets_are_not() -> None:
    client, server = await tls_pair()
    assert not client.has_unread()

    server.write(b"unasked")
    await until(client.has_unread)

    assert client.buffer == b"unasked"
    client.abort()
    server.abort()


async def test_an_end_below_leaves_no_wait_behind() -> None:
    client, server = await tls_pair()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(server.more(within(60)))
        await until(lambda: server in server._waits)
        waiting.cancel()
    server._below.abort()
    await until(lambda: server.is_over)

    assert server not in server._waits
    client.abort()


@pytest.mark.parametrize("is_owed", [True, False], ids=["may be owed something", "has all"])
@pytest.mark.parametrize("is_gone", [True, False], ids=["and closed its side", "and waits"])
async def test_only_who_said_goodbye_has_all_and_closed_its_side_gets_no_goodbye(is_gone: bool, is_owed: bool) -> None:
    client, server = await tls_pair()
    told: list[bytes] = []
    client._below.above = told.append
    client._say_goodbye()
    if is_gone:
        client._below.end()
    assert not await server.more()
    if not is_owed:
        server.owe_nothing()

    server.close()
    await until(lambda: told[-1:] == [b""])

    assert [bool(data) for data in told] == ([False] if is_gone and not is_owed else [True, False])
    client.abort()
