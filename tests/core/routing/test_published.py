from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from moat.api.errors import UsageError
from moat.routing.published import Published
from moat.routing.table import Route
from support.ports import free_port

from core.routing.place import RUN, connect

LIMIT_S = 30


@asynccontextmanager
async def published() -> AsyncIterator[Published]:
    made = Published(connect)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(made.forever())
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            serving.cancel()


@asynccontextmanager
async def an_echo() -> AsyncIterator[int]:
    """Yield the port of a program that sends back what it got once it has got all, and greets before."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        with contextlib.suppress(ConnectionError):
            writer.write(await reader.read())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def said(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()
    finally:
        writer.close()


def is_closed(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


async def until_closed(port: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not is_closed(port):  # noqa: ASYNC110 # a listener that is closed in another task
            await asyncio.sleep(0.01)


async def test_bytes_of_any_kind_go_both_ways_and_each_side_may_end_first() -> None:
    async with an_echo() as inside, published() as made:
        found = made.put(Route("otter", RUN, {"db": inside}))

        assert await said(found["db"], b"\x00\xff" * 300_000) == b"hello " + b"\x00\xff" * 300_000


async def test_a_port_is_where_it_was_wanted_and_only_on_loopback() -> None:
    wanted = free_port()
    async with an_echo() as inside, published() as made:
        found = made.put(Route("otter", RUN, {"api": inside, "web": inside}, {"web": wanted}))

        assert found["web"] == wanted
        assert found["api"] not in (0, wanted)
        assert await said(wanted, b"x") == b"hello x"
        assert {site.listener.getsockname()[0] for site in made._of("otter")} == {"127.0.0.1"}


async def test_a_port_that_is_taken_is_told_in_one_line_and_nothing_is_left_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        async with an_echo() as inside, published() as made:
            kept = made.put(Route("otter", RUN, {"web": inside}))

            with pytest.raises(UsageError) as refused:
                made.put(Route("otter", RUN, {"api": inside, "web": inside}, {"api": number}))

            told = f"port {number}, where api is to be published, cannot be had: Address already in use"
            assert refused.value.problem == told
            assert await said(kept["web"], b"x") == b"hello x"
            assert len(made._of("otter")) == 1


async def test_a_port_of_another_run_is_told_with_the_runs_name() -> None:
    async with published() as made:
        number = made.put(Route("otter", RUN, {"web": 1}))["web"]
        with pytest.raises(UsageError, match=f"port {number} is published for otter already"):
            made.put(Route("lark", "run_other", {"web": 1}, {"web": number}))
        with pytest.raises(UsageError, match="is published for lark already"):
            made.put(Route("lark", "run_other", {"api": 1, "web": 1}, dict.fromkeys(("api", "web"), free_port())))


async def test_what_is_asked_for_again_stays_where_it_is_and_what_is_not_is_closed() -> None:
    async with an_echo() as inside, an_echo() as other, published() as made:
        before = made.put(Route("otter", RUN, {"web": other, "api": inside}))

        after = made.put(Route("otter", RUN, {"web": inside}))

        assert after == {"web": before["web"]}
        assert await said(after["web"], b"x") == b"hello x"
        await until_closed(before["api"])
        moved = made.put(Route("otter", RUN, {"db": inside}, {"db": after["web"]}))
        assert moved == {"db": after["web"]}
        assert await said(moved["db"], b"y") == b"hello y"


async def test_the_end_of_a_run_ends_its_connections() -> None:
    async with an_echo() as inside, published() as made:
        port = made.put(Route("otter", RUN, {"web": inside}))["web"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(LIMIT_S):
            assert await reader.readexactly(6) == b"hello "

            made.remove("otter")

            assert await reader.read() == b""
        writer.close()
        await until_closed(port)


async def test_where_nothing_listens_inside_the_connection_is_closed_and_the_port_stays() -> None:
    async with published() as made:
        port = made.put(Route("otter", RUN, {"web": free_port()}))["web"]
        for _ in range(2):
            with contextlib.suppress(ConnectionError):
                assert await said(port, b"") == b""
        assert made._count == 0
