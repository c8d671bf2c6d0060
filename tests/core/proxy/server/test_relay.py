from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from moat.api.http import Authority
from moat.api.rules import Match, ReadUsage, Rule, SetHeader
from moat.api.runs import ExchangeRecord, NetworkPolicy
from moat.proxy.admit import LiveRun
from moat.proxy.entering import Entered
from moat.proxy.flow import Arrival
from moat.proxy.limits import Limits
from moat.proxy.server import connection
from moat.proxy.server import relay as module
from moat.proxy.server.exchange import Exchange
from moat.proxy.server.relay import Ways
from moat.proxy.server.stream import HIGH_BYTES
from moat.proxy.server.tls import TlsStream
from support.worker import RUN, a_run

from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import CA, LEAVES, flows, until

HOST = "a.example"
SECRET = "tok-s3cr3t-0123456789"
GET = b"GET /user?page=1 HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /user HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Far:
    """An upstream with TLS: what it was asked, and what it answers, again and again."""

    answer: bytes = OK
    rest: bytes = b""
    asked: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    connections: int = 0
    is_silent: bool = False
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(5) if b"Content-Length: 5" in head else b""
                self.asked.append(head + body)
                if not self.is_silent:
                    writer.write(self.answer)
                    await writer.drain()
                    if self.rest:
                        await asyncio.sleep(0.01)  # so that it is a record and a read of its own, on most days
                        writer.write(self.rest)
        writer.close()


@contextlib.asynccontextmanager
async def asking(
    limits: Limits | None = None, *more: Rule, trace_bodies: bool = False
) -> AsyncIterator[tuple[Far, Guest, TlsStream]]:
    """Yield an upstream, a house that knows a credential for it, and a client that has asked once, the long way."""
    far = Far()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0, ssl=LEAVES.context(HOST))
    far.port = server.sockets[0].getsockname()[1]
    rule = SetHeader(Match(HOST), "Authorization", f"Bearer {SECRET}", "example")
    pin = {HOST: f"127.0.0.1:{far.port}"}
    try:
        run = replace(a_run(rules=(rule, *more)), trace_bodies=trace_bodies)
        async with a_house(run, roots=CA.certificate_pem, resolve=pin, limits=limits) as guest:
            client = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
            assert await ask(client, GET) == OK
            yield far, guest, client
    finally:
        server.close()


async def ask(client: TlsStream, request: bytes, end: bytes = b"ok") -> bytes:
    client.write(request)
    return await heard(client, end)


async def heard(client: TlsStream, end: bytes = b"ok") -> bytes:
    async with asyncio.timeout(30):
        while not client.buffer.endswith(end) and await flows(client):
            pass
    answer = bytes(client.buffer)
    client.buffer.clear()
    return answer


@pytest.fixture(autouse=True)
def long_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went the long way: the targets of every Exchange that was made."""
    made: list[str] = []

    def counted(*parts: Any, **named: Any) -> Exchange:
        exchange = Exchange(*parts, **named)
        made.append(exchange.request.target)
        return exchange

    monkeypatch.setattr(connection, "Exchange", counted)
    return made


def without_times(record: ExchangeRecord) -> ExchangeRecord:
    return replace(record, at="", duration_ms=0.0, first_byte_ms=0.0, id="")


async def test_what_is_plain_goes_the_short_way_and_is_recorded_as_the_long_one(long_ways: list[str]) -> None:
    async with asking() as (far, guest, client):
        answers = [await ask(client, GET) for _ in range(3)]
        await until(lambda: len(guest.records) == 4)

    assert answers == [OK] * 3
    assert long_ways == ["/user?page=1"]
    assert far.connections == 1
    assert len({bytes(each) for each in far.asked}) == 1
    assert f"Authorization: Bearer {SECRET}".encode() in far.asked[-1]
    assert {without_times(record) for record in guest.records} == {without_times(guest.records[0])}
    assert guest.records[-1].at.endswith("+00:00")
    assert all(0 < record.first_byte_ms <= record.duration_ms for record in guest.records)
    assert len({record.id for record in guest.records}) == len(guest.records)


async def test_a_small_body_goes_along(long_ways: list[str]) -> None:
    async with asking() as (far, guest, client):
        answer = await ask(client, POST)
        await until(lambda: len(guest.records) == 2)

    assert answer == OK
    assert far.asked[-1].endswith(b"\r\n\r\nhello")
    assert len(long_ways) == 1
    assert (guest.records[1].method, guest.records[1].request_bytes, guest.records[1].response_bytes) == ("POST", 5, 2)


async def test_a_secret_in_a_short_answer_is_taken_out() -> None:
    async with asking() as (far, _, client):
        body = f"token={SECRET};ok".encode()
        far.answer = b"HTTP/1.1 200 OK\r\nX-Seen: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            SECRET.encode(), len(body), body)  # fmt: skip
        answers = [await ask(client, GET) for _ in range(2)]

    for answer in answers:
        assert SECRET.encode() not in answer
        assert answer.count(b"[moat:redacted") == 2
        assert len(answer) == len(far.answer)


async def test_two_connections_with_the_same_request_share_what_was_worked_out(long_ways: list[str]) -> None:
    async with asking() as (far, guest, _):
        other = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
        assert await ask(other, GET) == OK

    assert len(long_ways) == 1
    assert len(far.asked) == 2


async def test_the_first_use_of_a_connection_is_entered_into_the_audit_before_it_goes_the_short_way(
    long_ways: list[str],
) -> None:
    async with asking() as (far, guest, client):
        assert await ask(client, GET) == OK
        guest.says = None
        other = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
        other.write(GET)
        await until(lambda: len(guest.spent) == 2)
        assert len(far.asked) == 2
        guest.house.answered(Entered(guest.spent[-1].id))
        await until(lambda: len(far.asked) == 3)
        assert await heard(other) == OK
        assert await ask(other, GET) == OK
        guest.says = "no space left on the disk"
        third = await guest.tls_through(guest.listen(RUN, "proxy"), HOST)
        assert b"no space left on the disk" in await ask(third, GET, b"disk\n")

    assert len(far.asked) == 4
    assert long_ways == ["/user?page=1"]  # that of the very first request: nothing was kept then
    guest.house.close()
    assert sum(count for uses in guest.uses for _, _, count in uses.counts) == 2  # neither the first nor the third


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nok", id="chunked"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, id="interim"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="last"),
        pytest.param(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", id="unasked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", id="malformed"),
    ],
)
async def test_an_answer_that_is_not_plain_is_finished_the_long_way(answer: bytes, long_ways: list[str]) -> None:
    async with asking() as (far, guest, client):
        far.answer = answer
        client.write(GET)
        async with asyncio.timeout(30):
            while len(guest.records) < 2 and await flows(client):
                pass
        await until(lambda: len(guest.records) == 2)
        told = bytes(client.buffer)

    assert len(long_ways) == 2
    assert b"\r\n\r\nno" not in told
    assert told.startswith(b"HTTP/1.1 502" if b"h: x" in answer else b"HTTP/1.1 ")


async def test_the_rest_of_a_body_is_waited_for() -> None:
    async with asking() as (far, _, client):
        far.answer, far.rest = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"dok"
        far.rest = b"dok"
        answer = await ask(client, GET)

    assert answer.endswith(b"abcdok")


async def test_a_run_that_was_replaced_is_judged_anew() -> None:
    async with asking() as (far, guest, client):
        await ask(client, GET)
        guest.house.put(a_run(policy=NetworkPolicy("strict")), {})
        answer = await ask(client, GET, end=b"\n")

    assert answer.startswith(b"HTTP/1.1 403")
    assert len(far.asked) == 2


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with asking() as (far, guest, client):
        client.write(GET.replace(b"page=1", b"page=2") + GET.replace(b"page=1", b"page=3"))
        async with asyncio.timeout(30):
            while client.buffer.count(b"ok") < 2 and await client.more():
                pass
        await until(lambda: len(guest.records) == 3)

    assert [asked.split(b" ")[1][-1:] for asked in far.asked] == [b"1", b"2", b"3"]


async def test_a_silent_upstream_is_given_up_after_the_long_ways_limit() -> None:
    async with asking(Limits(first_byte_s=0.3)) as (far, guest, client):
        far.is_silent = True
        answer = await ask(client, GET, end=b"\n")

    assert answer.startswith(b"HTTP/1.1 504")
    assert guest.records[1].status == 504


async def test_an_answer_that_comes_late_is_not_waited_for_without_leave() -> None:
    async with asking() as (far, guest, client):
        far.is_silent = True
        client.write(GET)
        await until(lambda: len(far.asked) == 2)
        guest.house.put(a_run(), {})
        answer = await ask(client, b"", end=b"gone\n")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert guest.records[1].reason == "a grant that was spent on it is gone"


async def test_a_client_that_goes_away_ends_its_exchange() -> None:
    async with asking() as (far, guest, client):
        far.is_silent = True
        client.write(GET)
        await until(lambda: len(far.asked) == 2)
        client.abort()
        await until(lambda: len(guest.records) == 2)

    assert (guest.records[1].outcome, guest.records[1].reason) == ("failed", "the client went away")


async def test_a_run_that_ends_meanwhile_is_recorded() -> None:
    async with asking() as (far, guest, client):
        far.is_silent = True
        client.write(GET)
        await until(lambda: len(far.asked) == 2)
        guest.house.drop(RUN)
        await until(lambda: len(guest.records) == 2)

    assert (guest.records[1].outcome, guest.records[1].reason) == ("failed", "the run was stopped")


async def test_a_kept_connection_that_the_upstream_closed_is_replaced() -> None:
    async with asking() as (far, _, client):
        assert await ask(client, GET) == OK
        assert far.connections == 1
        for writer in far.writers:
            writer.close()
        assert await ask(client, GET) == OK

    assert far.connections == 2


async def test_a_silent_client_is_closed_after_the_limit() -> None:
    async with asking(Limits(idle_s=0.2)) as (_, _, client):
        async with asyncio.timeout(30):
            assert not await client.more()


def a_way(raw: bytes, run: LiveRun) -> module._Way:
    parts: list[object] = [None] * 5
    return module._Way(raw, None, run, run.spent.scrub, *parts)  # type: ignore[arg-type]  # find and keep look at no more


def test_ways_are_bounded_and_go_with_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAYS", 2)
    ways, run = Ways(), LiveRun.of(a_run())
    arrival = Arrival("connect", Authority("https", HOST, 443))
    for raw in (b"1", b"2", b"3"):
        ways.keep(arrival, a_way(raw, run))

    assert [ways.find(run, arrival, raw) is not None for raw in (b"1", b"2", b"3")] == [False, True, True]
    assert ways.find(LiveRun.of(a_run()), arrival, b"3") is None
    ways.drop_run(RUN)
    assert ways.find(run, arrival, b"3") is None


async def test_a_connection_that_carried_much_goes_on_at_once(long_ways: list[str]) -> None:
    async with asking() as (far, _, client):
        size = 3 * HIGH_BYTES
        far.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%bok" % (size + 2, bytes(size))
        assert len(await ask(client, GET)) > size
        far.answer = OK
        assert await ask(client, GET) == OK

    assert len(long_ways) == 2  # the first of all, and the long one


async def test_a_client_that_sent_much_too_early_is_read_on() -> None:
    async with asking() as (far, _, client):
        filler = b"X-Filler: " + b"x" * 60_000
        long = GET.replace(b"\r\n\r\n", b"\r\n" + filler + b"\r\n\r\n")
        client.write(GET + long * 8 + GET)
        async with asyncio.timeout(30):
            while client.buffer.count(b"ok") < 10 and await client.more():
                pass
        client.buffer.clear()
        answer = await ask(client, GET)

    assert answer == OK
    assert len(far.asked) == 12


async def test_what_a_model_s_answer_says_of_tokens_is_recorded(long_ways: list[str]) -> None:
    async with asking(None, ReadUsage(Match(HOST, ("GET",), ("/say",)))) as (far, guest, client):
        body = b'{"model": "big-1", "usage": {"input_tokens": 7, "output_tokens": 3}}'
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        far.answer = head.encode() + body
        assert (await ask(client, GET.replace(b"/user?page=1", b"/say"), body)) == far.answer
        await until(lambda: len(guest.records) == 2)

    assert [each.model for each in guest.records] == ["", "big-1"]
    assert (guest.records[1].input_tokens, guest.records[1].output_tokens) == (7, 3)


async def test_a_run_that_asked_for_it_has_headers_and_bodies_in_its_trace(long_ways: list[str]) -> None:
    async with asking(trace_bodies=True) as (far, guest, client):
        answer = b'{"echo": "Bearer %s"}' % SECRET.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        far.answer = head.encode() + answer
        post = POST.replace(b"Content-Length", b"Content-Type: text/plain\r\nX-Api-Key: own-s3cr3t\r\nContent-Length")
        assert await ask(client, post, b"}")
        await until(lambda: len(guest.records) == 2)

    record = guest.records[1]
    assert dict(record.request_headers)["X-Api-Key"] == "[moat:left out]"
    assert record.request_body == "hello"
    assert dict(record.response_headers)["Content-Type"] == "application/json"
    assert record.response_body.startswith('{"echo": "Bearer [moat:redacted')
    assert "s3cr3t" not in repr(record)
