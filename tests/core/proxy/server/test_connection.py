from __future__ import annotations

import base64

import pytest
from moat.api.rules import Match, ReplaceToken
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from support.worker import OTHER_RUN, RUN, TOKEN, a_run

from core.proxy.server.house_of import a_house, scripted
from core.proxy.server.pairs import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
BASIC = b"Proxy-Authorization: Basic " + base64.b64encode(f"x:{TOKEN}".encode()) + b"\r\n"


async def test_a_refused_request_without_body_keeps_the_connection() -> None:
    strict = NetworkPolicy("strict", ("a.example",))
    async with scripted(OK) as (pin, _), a_house(a_run(policy=strict), resolve={"a.example": pin}) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        refused = await guest.ask(client, GET.replace(b"a.example", b"b.example"), b'allow: ["b.example"]}\n')
        allowed = await guest.ask(client, GET, b"\r\n\r\nok")

    assert b"403 Forbidden" in refused
    assert allowed.startswith(b"HTTP/1.1 200 OK")


async def test_a_refused_request_with_a_body_closes_after_the_answer() -> None:
    async with a_house(a_run(policy=NetworkPolicy("strict")), limits=Limits(linger_s=0.01)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        request = GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
        answer = await guest.ask(client, request + b"hello" * 1000, b"never")

    assert b"403 Forbidden" in answer
    assert b"Connection: close" in answer


async def test_a_token_is_asked_for_on_every_request_and_stays_on_this_side() -> None:
    async with scripted(OK) as (pin, heads), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = await guest.connect(guest.listen("", "token"))
        with_token = await guest.ask(client, GET.replace(b"\r\n\r\n", b"\r\n" + BASIC + b"\r\n"), b"\r\n\r\nok")
        without = await guest.ask(client, GET, b"live run\n")

    assert with_token.startswith(b"HTTP/1.1 200")
    assert without.startswith(b"HTTP/1.1 407")
    assert b"Authorization" not in heads[0]
    assert [record.run_id for record in guest.records] == [RUN, ""]


async def test_a_tunnel_to_another_port_than_80_carries_only_tls() -> None:
    async with a_house(a_run()) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        await guest.ask(client, b"CONNECT a.example:22 HTTP/1.1\r\nHost: a.example\r\n\r\n", b"established\r\n\r\n")
        answer = await guest.ask(client, b"SSH-2.0-client\r\n", b"never")

    assert b"400 Bad Request" in answer
    assert b"only TLS" in answer
    assert guest.records[0].port == 22


async def test_a_tunnel_that_stays_silent_is_recorded_and_closed() -> None:
    async with a_house(a_run(), limits=Limits(handshake_s=0.01)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        await guest.ask(client, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", b"established\r\n\r\n")
        assert not await client.more()

    assert guest.records[0].reason == "nothing came through the tunnel"


async def test_a_head_that_does_not_end_is_cut() -> None:
    async with a_house(a_run(), limits=Limits(head_s=0.01)) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))

        assert await guest.ask(client, b"GET / HTTP/1.1\r\n", b"never") == b""


async def test_a_malformed_head_is_answered_recorded_and_closed() -> None:
    async with a_house(a_run()) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        answer = await guest.ask(client, b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", b"moat: ")
        client.close()
        await until(lambda: bool(guest.records))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert guest.records[0].outcome == "refused"


async def test_the_probe_is_answered_and_not_recorded() -> None:
    async with a_house(a_run(is_open=False, probe_answer="nonce")) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        answer = await guest.ask(client, b"GET /_moat/probe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"nonce")

    assert answer.endswith(b"\r\n\r\nnonce")
    assert guest.records == []


async def test_a_body_that_is_held_ends_with_the_leave_to_send_it() -> None:
    rule = ReplaceToken(Match("a.example"), "moat-placeholder", "s3cr3t", ("body",), 1000, False, "g")
    async with a_house(a_run(rules=(rule,))) as guest:
        client = await guest.tls_through(guest.listen(RUN, "proxy"), "a.example")
        client.write(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\nContent-Type: text/plain\r\n\r\nfirst"
        )
        connection = next(iter(guest.house._rooms[RUN].connections.values()))
        await until(lambda: connection.current is not None)
        guest.house.put(a_run(policy=NetworkPolicy("strict")), {})
        await until(lambda: len(guest.records) == 1)

    assert (guest.records[0].outcome, guest.records[0].reason) == (
        "failed",
        "the policy does not let it out any more",
    )


OLD_CONNECT = b"CONNECT a.example:80 HTTP/1.0\r\n"
CONNECT = b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n"


@pytest.mark.parametrize("host", [b"Host: a.example:80\r\n", b""], ids=["with Host", "without Host"])
async def test_a_connect_of_http_1_0_opens_a_tunnel_at_a_door(host: bytes) -> None:
    async with scripted(OK) as (pin, heads), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        opened = await guest.ask(client, OLD_CONNECT + host + b"\r\n", b"\r\n\r\n")
        answer = await guest.ask(client, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"\r\n\r\nok")

    assert b" 200 " in opened.partition(b"\r\n")[0]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("second", "missing"),
    [(CONNECT + BASIC + b"\r\n", 0), (CONNECT + b"\r\n", 2), (b"", 1)],
    ids=["shown", "not", "gone"],
)
async def test_a_client_that_shows_its_token_when_asked_has_not_guessed(second: bytes, missing: int) -> None:
    async with scripted(OK) as (pin, _), a_house(a_run(), resolve={"a.example": pin}) as guest:
        address = guest.listen("", "token")
        for _ in range(2):  # the second time, what was let through is remembered
            client = await guest.connect(address)
            asked = await guest.ask(client, CONNECT + b"\r\n", b"live run\n")
            assert asked.startswith(b"HTTP/1.1 407 ")
            if second:
                await guest.ask(client, second, b"\r\n\r\n")
        guest.house.close()

    assert sum(each.missing for message in guest.guessed for each in message.guesses) == 2 * missing


async def test_a_connect_of_http_1_0_is_known_by_its_token_and_refused_and_closed_without() -> None:
    async with scripted(OK) as (pin, _), a_house(a_run(), resolve={"a.example": pin}) as guest:
        address = guest.listen("", "token")
        with_token = await guest.ask(await guest.connect(address), OLD_CONNECT + BASIC + b"\r\n", b"\r\n\r\n")
        client = await guest.connect(address)
        without = await guest.ask(client, OLD_CONNECT + b"\r\n", b"never")

    assert b" 200 " in with_token.partition(b"\r\n")[0]
    assert without.startswith(b"HTTP/1.1 407 ")
    assert b"Connection: close\r\n" in without
    assert client.is_over


WITH_TOKEN = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n" + BASIC + b"\r\n"


async def test_the_same_connect_is_judged_anew_once_its_run_is_another() -> None:
    async with a_house(a_run(), a_run(run_id=OTHER_RUN, token="another")) as guest:
        anyones, others = guest.listen("", "token"), guest.listen(OTHER_RUN, "token")

        async def connected(address: tuple[str, int] = anyones) -> bytes:
            answer = await guest.ask(await guest.connect(address), WITH_TOKEN, b"\r\n\r\n")
            return answer[9:12]

        assert [await connected() for _ in range(3)] == [b"200"] * 3
        assert await connected(others) == b"407"  # a token of another run's counts there no more than before
        guest.house.put(a_run(policy=NetworkPolicy("strict")), {})
        assert await connected() == b"403"
        guest.house.put(a_run(is_open=False), {})
        assert await connected() == b"503"
        guest.house.put(a_run(), {})
        assert [await connected() for _ in range(2)] == [b"200"] * 2
        guest.house.put(a_run(token="new"), {})
        assert await connected() == b"407"
        guest.house.put(a_run(), {})
        assert [await connected() for _ in range(2)] == [b"200"] * 2
        guest.house.drop(RUN)
        assert await connected() == b"407"


async def test_a_known_connect_counts_in_its_run_and_is_refused_where_that_is_full() -> None:
    async with a_house(a_run()) as guest:
        address, room = guest.listen("", "token"), guest.house._rooms[RUN]
        await guest.ask(await guest.connect(address), WITH_TOKEN, b"\r\n\r\n")
        await guest.ask(await guest.connect(address), WITH_TOKEN, b"\r\n\r\n")
        assert len(room.connections) == 2
        room.limit = 2
        answer = await guest.ask(await guest.connect(address), WITH_TOKEN, b"connections")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert [record.status for record in guest.records if record.status] == [503]
