"""Whoever sends slowly, floods or guesses is cut at every stage, by shortened limits; others are served meanwhile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from core.proxy.server.house_of import Guest, a_house, scripted
from core.proxy.server.pairs import CA, until
from moat.api.endpoints import Endpoint, Tcp, Upstream
from moat.api.endpoints import Stream as EndpointStream
from moat.proxy.budget import FailureBudget
from moat.proxy.limits import Limits
from moat.proxy.messages import Configure
from moat.proxy.server.stream import PlainStream
from support.worker import RUN, TOKEN, a_run

SHORT_S, LONG_S = 0.05, 60.0
PATIENT = Limits(idle_s=LONG_S, head_s=LONG_S, handshake_s=LONG_S, body_idle_s=LONG_S, linger_s=0.01)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"


def changed(**limits: float) -> Limits:
    """Return limits of which only these are short."""
    values = {name: getattr(PATIENT, name) for name in ("idle_s", "head_s", "handshake_s", "body_idle_s", "linger_s")}
    return Limits(**(values | limits))


@contextlib.asynccontextmanager
async def a_place(*answers: bytes, limits: Limits, pin: str = "") -> AsyncIterator[Guest]:
    async with (
        scripted(*answers) as (scripted_pin, _),
        a_house(a_run(), resolve={"a.example": pin or scripted_pin}, limits=limits) as guest,
    ):
        yield guest


async def until_cut(stream: PlainStream) -> bytes:
    """Read to the end; return what came."""
    with contextlib.suppress(ConnectionError):
        while await stream.more():
            pass
    return bytes(stream.buffer)


@pytest.mark.parametrize(
    ("sent", "limits", "answer"),
    [
        (b"", changed(idle_s=SHORT_S), b""),
        (b"CONNECT a.exam", changed(head_s=SHORT_S), b""),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: ", changed(head_s=SHORT_S), b""),
        (GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhe"),
         changed(body_idle_s=SHORT_S), b"HTTP/1.1 408 Request Timeout"),
    ],
    ids=["nothing", "CONNECT", "header", "body"],
)  # fmt: skip
async def test_a_client_that_stops_sending_is_cut(sent: bytes, limits: Limits, answer: bytes) -> None:
    async with a_place(b"", b"", limits=limits) as guest:  # an upstream that waits for the rest
        client = await guest.connect(guest.listen(RUN, "proxy"))
        client.write(sent)

        assert (await until_cut(client)).startswith(answer)


@pytest.mark.parametrize("hello", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["none", "one", "some"])
async def test_a_client_that_stops_in_its_client_hello_is_cut_and_recorded(hello: bytes) -> None:
    async with a_place(limits=changed(handshake_s=SHORT_S)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        client.write(CONNECT + hello)

        assert (await until_cut(client)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: [record.outcome for record in guest.records] == ["failed"])


async def test_a_client_hello_without_end_is_cut_before_it_fills_memory() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16_380)  # a hello of 16 MiB, in records of 16 KiB
    more = b"\x16\x03\x01\x40\x00" + bytes(16_384)
    async with a_place(limits=PATIENT) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        client.write(CONNECT + record)
        for _ in range(64):
            client.write(more)

        await until_cut(client)
        await until(lambda: bool(guest.records))
    assert guest.records[0].outcome == "failed"


async def test_one_slow_client_does_not_hold_up_the_next() -> None:
    async with a_place(OK, limits=PATIENT) as guest:
        door = guest.listen(RUN, "proxy")
        for beginning in (b"", b"GET ht", CONNECT, CONNECT + b"\x16\x03"):
            (await guest.connect(door)).write(beginning)

        assert (await guest.ask(await guest.connect(door), GET, b"\r\n\r\nok")).endswith(b"ok")


@pytest.mark.parametrize(
    ("answer", "limits", "reason"),
    [
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", changed(first_byte_s=SHORT_S), "did not answer in"),
        (b"HTTP/1.1 200 OK\r\nX: ", changed(answer_head_s=SHORT_S), "did not end the head"),
    ],
    ids=["no answer", "half a head"],
)
async def test_an_upstream_that_stops_before_its_answer_is_a_504(answer: bytes, limits: Limits, reason: str) -> None:
    async with a_place(answer, b"", limits=limits) as guest:
        got = await guest.ask(await guest.connect(guest.listen(RUN, "proxy")), GET, b"moat: ")

        assert b"HTTP/1.1 504 Gateway Timeout" in got
        await until(lambda: bool(guest.records))  # told after the answer
        assert reason in guest.records[0].reason


async def test_an_upstream_has_its_whole_time_from_the_end_of_a_slow_upload_on() -> None:
    limit_s, clock = 0.4, asyncio.get_running_loop().time
    slow = GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nhe")
    async with a_place(b"", b"", limits=changed(first_byte_s=limit_s)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        client.write(slow)
        ready_at = clock() + 0.75 * limit_s
        await until(lambda: clock() > ready_at)
        ended_at = clock()
        got = await guest.ask(client, b"re", b"moat: ")
        waited_s = clock() - ended_at

    assert b"HTTP/1.1 504 Gateway Timeout" in got
    assert waited_s >= limit_s


async def test_an_upgrade_that_is_not_answered_is_a_504_too() -> None:
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    async with a_place(b"", b"", limits=changed(first_byte_s=SHORT_S)) as guest:
        got = await guest.ask(await guest.connect(guest.listen(RUN, "proxy")), upgrade, b"moat: ")

    assert b"HTTP/1.1 504 Gateway Timeout" in got
    assert b"upstream.first_byte_minutes" in got


async def test_the_installation_sets_how_long_an_answer_may_take_to_begin() -> None:
    told = Configure(CA.certificate_pem, CA.key_pem, first_byte_s=SHORT_S)
    async with scripted(b"", b"") as (pin, _), a_house(a_run(), limits=PATIENT) as guest:
        guest.house.configure(replace(told, resolve={"a.example": pin}))
        got = await guest.ask(await guest.connect(guest.listen(RUN, "proxy")), GET, b"moat: ")

    assert b"HTTP/1.1 504 Gateway Timeout" in got


@pytest.mark.parametrize(
    "flood",
    [b"HTTP/1.1 102 Processing\r\n\r\n" * 100_000, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000_000,
     b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000_000],
    ids=["interim answers", "headers", "one header"],
)  # fmt: skip
async def test_a_flood_from_upstream_is_a_502_and_the_rest_is_not_read(flood: bytes) -> None:
    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(flood)
            await writer.drain()
        poured.set()
        writer.close()

    poured = asyncio.Event()
    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with a_place(limits=PATIENT, pin=pin) as guest:
        got = await guest.ask(await guest.connect(guest.listen(RUN, "proxy")), GET, b"moat: ")
        await poured.wait()

    server.close()
    assert b"HTTP/1.1 502 Bad Gateway" in got
    assert len(got) < 4_096


def with_token(token: str) -> bytes:
    basic = base64.b64encode(f"x:{token}".encode())
    return GET.replace(b"\r\n\r\n", b"\r\nProxy-Authorization: Basic " + basic + b"\r\n\r\n")


async def test_guesses_of_a_token_are_slowed_down_and_the_right_one_never() -> None:
    limits, failures = Limits(guess_delay_s=LONG_S), FailureBudget(allowance=2, refill_s=LONG_S * 1000)
    async with (
        scripted(*[OK] * 9) as (pin, _),
        a_house(a_run(), resolve={"a.example": pin}, limits=limits, failures=failures) as guest,
    ):
        door = guest.listen("", "token")
        guesser = await guest.connect(door)
        first, second = [await guest.ask(guesser, with_token("s3cr3t-guess"), b"live run\n") for _ in range(2)]
        guesser.write(with_token("s3cr3t-guess"))
        known = await guest.connect(door)
        answers = [await guest.ask(known, with_token(TOKEN), b"\r\n\r\nok") for _ in range(5)]
        unasked = await guest.ask(await guest.connect(door), GET, b"live run\n")
        elsewhere = await guest.connect(door, local="127.0.0.2")
        other = await guest.ask(elsewhere, with_token("s3cr3t-guess"), b"live run\n")

        assert guesser.buffer == b""
    assert all(answer.startswith(b"HTTP/1.1 407 ") for answer in (first, second, unasked, other))
    assert all(answer.endswith(b"ok") for answer in answers)


async def test_a_late_answer_to_a_guess_is_the_last_on_its_connection_and_not_recorded() -> None:
    limits, failures = Limits(guess_delay_s=0.01), FailureBudget(allowance=1, refill_s=LONG_S * 1000)
    async with a_house(a_run(), limits=limits, failures=failures) as guest:
        client = await guest.connect(guest.listen("", "token"))
        await guest.ask(client, with_token("s3cr3t-guess"), b"live run\n")
        client.write(with_token("s3cr3t-guess"))
        late = await until_cut(client)

        assert late.startswith(b"HTTP/1.1 407 ")
        assert b"Connection: close" in late
    assert [record.status for record in guest.records] == [407]


WHOLE = 128 * 1_048_576
BOUND = 64 * 1_048_576  # the kernel's buffers of two connections, at their largest, and ours
PIECE = bytes(65_536)
FAR = Endpoint(Tcp("bytes.internal", 9, tls=False), EndpointStream(Upstream("a.example:9", tls=False)))


@dataclass
class Counting:
    """A service that sends or takes WHOLE bytes, and counts those that went. go_on: when it takes what it is sent."""

    is_sending: bool
    count: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if self.is_sending:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % WHOLE)
                while self.count < WHOLE:
                    writer.write(PIECE)
                    await writer.drain()
                    self.count += len(PIECE)
            else:
                await self.go_on.wait()
                while self.count < WHOLE:
                    self.count += len(await reader.read(len(PIECE)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@contextlib.asynccontextmanager
async def counted(*, is_sending: bool) -> AsyncIterator[tuple[Counting, Guest]]:
    service = Counting(is_sending)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with a_house(replace(a_run(), endpoints=(FAR,)), resolve={"a.example": pin}) as guest:
            yield service, guest
    finally:
        server.close()


async def at_rest(count: Callable[[], int]) -> int:
    """Return what count says once it stays the same for many turns of the loop."""
    seen, same = -1, 0
    while same < 2_000:
        await asyncio.sleep(0)
        now = count()
        seen, same = (now, same + 1) if now == seen and now > 0 else (now, 0)
    return seen


@pytest.mark.parametrize("way", ["over HTTP/1.1", "at an endpoint of bytes"])
async def test_a_client_that_reads_nothing_stops_the_upstream(way: str) -> None:
    async with counted(is_sending=True) as (service, guest):
        client = await guest.connect(guest.listen(RUN, "proxy"))
        if way == "over HTTP/1.1":
            client.write(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        else:
            await guest.ask(client, b"CONNECT bytes.internal:9 HTTP/1.1\r\nHost: bytes.internal:9\r\n\r\n", b"\r\n\r\n")
            client.write(b"go\r\n\r\n")
        client.pause()
        assert await at_rest(lambda: service.count) < BOUND

        received = 0
        while received < WHOLE and await client.more():
            received += len(client.buffer)
            client.buffer.clear()
    assert received >= WHOLE


async def test_an_upstream_that_takes_nothing_stops_the_client() -> None:
    sent = 0

    async def send(client: PlainStream) -> None:
        nonlocal sent
        while sent < WHOLE:
            client.write(PIECE)
            await client.drain()
            sent += len(PIECE)

    async with counted(is_sending=False) as (service, guest):
        client = await guest.connect(guest.listen(RUN, "proxy"))
        client.write(b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % WHOLE)
        async with asyncio.TaskGroup() as group:
            group.create_task(send(client))
            assert await at_rest(lambda: sent) < BOUND
            service.go_on.set()
        answer = await guest.ask(client, b"", b"\r\n\r\nok")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert service.count == WHOLE


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a head, and no more than a reader takes by itself; begin an answer to one that wants it begun."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"X-Begin" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def to_the_deaf(limits: Limits) -> AsyncIterator[Guest]:
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(group.create_task(deaf(reader, writer)))
            tasks[-1].add_done_callback(lambda _: writer.close())

        server = await asyncio.start_server(welcome, "127.0.0.1", 0)
        pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with a_house(a_run(), resolve={"a.example": pin}, limits=limits) as guest:
            yield guest
        server.close()
        for task in tasks:
            task.cancel()


async def pour(client: PlainStream, head: bytes) -> None:
    """Send a head and a body of WHOLE bytes, as far as they are taken."""
    client.write(head)
    with contextlib.suppress(ConnectionError):
        for _ in range(WHOLE // len(PIECE)):
            client.write(PIECE)
            await client.drain()


POST = b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % WHOLE


@pytest.mark.parametrize("is_begun", [False, True], ids=["before its answer", "in its answer"])
async def test_an_upstream_that_stops_in_the_middle_of_an_upload_is_given_up(*, is_begun: bool) -> None:
    head = POST.replace(b"\r\n\r\n", b"\r\nX-Begin: 1\r\n\r\n") if is_begun else POST
    async with to_the_deaf(changed(upload_idle_s=0.2, first_byte_s=LONG_S)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(pour(client, head))
            got = await until_cut(client)
        await until(lambda: bool(guest.records))

    if is_begun:
        assert got.endswith(b"begun")
        assert guest.records[0].reason == "the upstream broke off"
    else:
        assert b"HTTP/1.1 504 Gateway Timeout" in got
        assert b"upstream.upload_idle_minutes" in got
        assert (guest.records[0].status, guest.records[0].error) == (504, "timeout")


async def test_the_installation_sets_how_long_an_upload_may_stop() -> None:
    async with to_the_deaf(changed(first_byte_s=LONG_S)) as guest:
        services = guest.house._services
        assert services is not None
        assert services.limits.upload_idle_s == Limits().upload_idle_s
        guest.house.configure(Configure(CA.certificate_pem, CA.key_pem, upload_idle_s=SHORT_S))

        assert guest.house._services is not None
        assert guest.house._services.limits.upload_idle_s == SHORT_S
