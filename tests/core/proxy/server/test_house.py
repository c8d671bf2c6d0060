from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from moat.proxy.server import rooms
from moat.proxy.server.house import House
from moat.proxy.server.stream import PlainStream
from support.worker import OTHER_RUN, RUN, a_run

from core.proxy.server.house_of import Guest, a_house, scripted
from core.proxy.server.pairs import flows, until
from core.proxy.server.test_dns import query

PROBE = b"GET /_moat/probe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def test_a_connection_belongs_to_the_run_of_its_door() -> None:
    async with a_house(a_run(probe_answer="mine"), a_run(OTHER_RUN, probe_answer="theirs")) as guest:
        mine, theirs = guest.listen(RUN, "proxy"), guest.listen(OTHER_RUN, "proxy")

        assert (await guest.ask(await guest.connect(mine), PROBE, b"mine")).endswith(b"mine")
        assert (await guest.ask(await guest.connect(theirs), PROBE, b"theirs")).endswith(b"theirs")


async def test_a_replaced_run_is_seen_by_open_connections_and_keeps_its_names() -> None:
    async with a_house() as guest:
        guest.house.put(a_run(is_open=False), {"a.example": "127.107.0.5"})
        client = await guest.connect(guest.listen(RUN, "proxy"))
        guest.house.put(a_run(probe_answer="new"), {})

        assert (await guest.ask(client, PROBE, b"new")).endswith(b"new")


async def test_dropping_a_run_ends_its_connections_and_not_those_of_others() -> None:
    async with a_house(a_run(), a_run(OTHER_RUN, probe_answer="alive")) as guest:
        mine = await guest.connect(guest.listen(RUN, "proxy"))
        other = await guest.connect(guest.listen(OTHER_RUN, "proxy"))
        await asyncio.sleep(0)
        guest.house.drop(RUN)
        guest.house.drop(RUN)

        assert not await mine.more()
        assert (await guest.ask(other, PROBE, b"alive")).endswith(b"alive")


async def test_a_socket_before_its_run_or_the_settings_is_closed_and_an_error() -> None:
    async with asyncio.TaskGroup() as group:
        for house in (House(group, lambda _: None, lambda *_: None),):
            sock = socket.socket()
            with pytest.raises(ValueError, match="before"):
                house.listen(RUN, "proxy", sock)
            assert sock.fileno() == -1


async def test_at_the_cap_connections_wait_in_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MAX_CONNECTIONS", 1)
    async with a_house(a_run(probe_answer="served")) as guest:
        door = guest.listen(RUN, "proxy")
        first = await guest.connect(door)
        waiting = await guest.connect(door)
        waiting.write(PROBE)
        assert (await guest.ask(first, PROBE, b"served")).endswith(b"served")

        assert await waiting.more()


async def test_only_open_runs_name_hosts_and_every_new_name_is_told() -> None:
    async with a_house(a_run(), a_run(OTHER_RUN, is_open=False)) as guest:
        rooms = guest.house._rooms
        address = guest.house._address(rooms[RUN], "a.example")

        assert guest.house._address(rooms[OTHER_RUN], "a.example") is None
        assert guest.named == [(RUN, "a.example", address)]


async def test_a_failure_in_one_connection_stays_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with a_house(a_run(probe_answer="alive")) as guest:
        door = guest.listen(RUN, "proxy")
        with monkeypatch.context() as patch:
            patch.setattr(House, "_dispatch", fail)
            broken = await guest.connect(door)
            await until(lambda: broken.is_over)

        assert (await guest.ask(await guest.connect(door), PROBE, b"alive")).endswith(b"alive")


async def test_a_look_up_of_a_host_that_the_policy_keeps_in_is_recorded_once_with_the_way_out() -> None:
    strict = a_run(policy=NetworkPolicy("strict", ("a.example",)))
    async with a_house(strict) as guest:
        door = guest.listen(RUN, "dns-tcp")
        for host in ("a.example", "b.example", "b.example"):
            question = query(host)
            await guest.ask(await guest.connect(door), len(question).to_bytes(2, "big") + question, host.encode()[:1])

        assert [(each.via, each.outcome, each.host, each.allow_line) for each in guest.records] == [
            ("dns", "denied", "b.example", "--allow-host b.example")
        ]


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """A server that answers when it is told to: its address, `asked`, `go_on`."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", asked, go_on
    finally:
        go_on.set()
        server.close()


GET = b"GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n\r\n"


async def test_a_worker_that_leaves_lets_an_exchange_end_and_closes_what_is_idle() -> None:
    async with (
        held() as (where, asked, go_on),
        a_house(a_run(), resolve={"plain.example": where}, allow_cidrs=("127.0.0.0/8",)) as guest,
    ):
        door = guest.listen(RUN, "proxy")
        idle, busy = await guest.connect(door), await guest.connect(door)
        busy.write(GET)
        await asked.wait()

        async with asyncio.TaskGroup() as group:
            draining = group.create_task(guest.house.drain(30))
            assert not await idle.more()
            assert not draining.done()
            go_on.set()
            while await busy.more():
                pass

        assert bytes(busy.buffer).endswith(b"late")
        assert [each.outcome for each in guest.records] == ["forwarded"]


async def test_a_worker_that_leaves_waits_for_nobody_longer_than_it_may() -> None:
    async with (
        held() as (where, asked, _),
        a_house(a_run(), resolve={"plain.example": where}, allow_cidrs=("127.0.0.0/8",)) as guest,
    ):
        busy = await guest.connect(guest.listen(RUN, "proxy"))
        busy.write(GET)
        await asked.wait()

        await guest.house.drain(0.05)
        guest.house.close()

        assert not await busy.more()
        await until(lambda: [each.outcome for each in guest.records] == ["failed"])


LAST_BYTES = 200_000  # below what makes moat wait before it has written all
SMALL_BYTES = 4_096


def narrow(guest: Guest, run_id: str, name: str) -> tuple[str, int]:
    """Hand a listener over whose connections have little room in the kernel."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    address: tuple[str, int] = sock.getsockname()
    guest.house.listen(run_id, name, sock)
    return address


async def reads_nothing(guest: Guest, address: tuple[str, int]) -> PlainStream:
    """Return a client with little room too, that does not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
    sock.connect(address)
    _, client = await asyncio.get_running_loop().create_connection(PlainStream, sock=sock)
    client.pause()
    guest.streams.append(client)
    return client


async def to_the_end(client: PlainStream) -> int:
    """Return how many bytes came until the connection ended."""
    async with asyncio.timeout(30):
        while await flows(client):
            pass
    return len(client.buffer)


LAST = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % LAST_BYTES + bytes(LAST_BYTES)
CLOSING = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("ending", ["it takes them", "the run ends"])
async def test_a_client_has_its_seat_until_it_took_the_last_of_its_answers_or_the_run_ends(ending: str) -> None:
    async with scripted(b"!" + LAST) as (pin, _), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = await reads_nothing(guest, narrow(guest, RUN, "proxy"))
        seats = guest.house._rooms[RUN].connections
        client.write(CLOSING)
        await until(lambda: bool(guest.records))
        for _ in range(100):
            await asyncio.sleep(0)

        assert len(seats) == 1
        if ending == "the run ends":
            guest.house.drop(RUN)
            assert await to_the_end(client) < LAST_BYTES
        else:
            assert await to_the_end(client) > LAST_BYTES
        await until(lambda: not seats)


async def test_a_worker_that_leaves_lets_a_client_take_the_last_of_its_answers() -> None:
    async with scripted(b"!" + LAST) as (pin, _), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = await reads_nothing(guest, narrow(guest, RUN, "proxy"))
        client.write(CLOSING)
        await until(lambda: bool(guest.records))

        async with asyncio.TaskGroup() as group:
            group.create_task(guest.house.drain(30))
            assert await to_the_end(client) > LAST_BYTES


async def test_who_shows_no_token_and_reads_no_answers_loses_its_seat_in_time() -> None:
    limits = Limits(unidentified_s=0.2, linger_s=0.05)
    async with a_house(a_run(), limits=limits) as guest:
        client = await reads_nothing(guest, narrow(guest, "", "token"))
        seats = guest.house._rooms[""].connections
        await until(lambda: len(seats) == 1)
        client.write(GET * 3_000)

        await until(lambda: not seats)
