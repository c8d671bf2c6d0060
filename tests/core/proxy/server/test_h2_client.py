from __future__ import annotations

import asyncio

import pytest
from h2 import events
from moat.api.runs import NetworkPolicy
from moat.net.rules import parse_rule
from moat.proxy.admit import LiveRun
from moat.proxy.flow import Arrival, Passage, judge
from moat.proxy.http1 import Request
from moat.proxy.http2 import CALM, MAX_STREAMS, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from moat.proxy.http2_frames import FLOOD_BURST
from moat.proxy.limits import Limits
from moat.proxy.record import Trail
from moat.proxy.server import h2_client as module
from support.worker import RUN, a_run

from core.proxy.server.h2_peers import HOST, RULE, SECRET, Peer, h2_client, h2_house, h2_server, ok, tls_client
from core.proxy.server.pairs import until

GRPC = ("content-type", "application/grpc")


def silent(peer: Peer, event: events.Event) -> None:
    """Answer nothing."""


async def test_each_stream_is_judged_and_recorded_by_itself() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        streams = [client.ask(f"/{number}") for number in range(20)]
        answers = [await client.answered(stream) for stream in streams]
        await until(lambda: len(guest.records) == 20)

    assert {answer[":status"] for answer in answers} == {"200"}
    assert {client.body(stream) for stream in streams} == {b"ok"}
    assert {record.path for record in guest.records} == {f"/{number}" for number in range(20)}
    assert {(record.outcome, record.grants) for record in guest.records} == {("forwarded", ("example",))}


async def test_the_credential_goes_upstream_and_the_clients_own_does_not() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        await client.answered(client.ask("/", ("authorization", "Bearer placeholder"), ("x", "1")))

    seen = server.peers[0].fields(1)
    assert (seen["authorization"], seen["x"], seen[":authority"]) == (SECRET, "1", HOST)


async def test_a_policy_denial_is_an_answer_with_the_line_to_add() -> None:
    strict = NetworkPolicy("strict")
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        await client.answered(client.ask("/before"))
        guest.house.put(a_run(policy=strict), {})
        stream, head = client.ask("/", method="POST", end=False), client.ask("/", method="HEAD")
        answer, bare = await client.answered(stream), await client.answered(head)

    assert (answer[":status"], answer["x-moat-allow"]) == ("403", f"--allow-host {HOST}")
    assert b"to allow it, add: --allow-host" in client.body(stream)
    assert client.reset_code(stream) == NO_ERROR  # its body is not wanted
    assert (bare[":status"], client.body(head)) == ("403", b"")
    assert len(server.peers[0].of(events.RequestReceived, 3)) == 0


async def test_a_grpc_client_is_told_in_its_own_words() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        guest.house.put(a_run(policy=NetworkPolicy("strict")), {})
        stream = client.ask("/pkg.Service/Call", GRPC, method="POST")
        answer = await client.answered(stream)
        await until(lambda: len(guest.records) == 1)

    assert (answer[":status"], answer["grpc-status"], answer["content-type"]) == ("200", "7", "application/grpc")
    said = f'add: --allow-host {HOST}; or to moat.yaml: network: {{allow: ["{HOST}"]}}'
    assert answer["grpc-message"].endswith(said)
    assert guest.records[0].status == 403


@pytest.mark.parametrize("authority", ["b.example", "a.example:444", "a.example."], ids=["host", "port", "same"])
async def test_authority_is_that_of_the_tunnel_or_the_request_is_misdirected(authority: str) -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        number = client.h2.get_next_available_stream_id()
        client.h2.send_headers(number, [(":method", "GET"), (":scheme", "https"), (":authority", authority),
                                        (":path", "/")], end_stream=True)  # fmt: skip
        client.flush()
        answer = await client.answered(number)

    assert answer[":status"] == ("200" if authority == "a.example." else "421")
    assert len(server.peers) == (1 if authority == "a.example." else 0)


@pytest.mark.parametrize(
    "extra",
    [("host", "b.example"), ("transfer-encoding", "chunked"), ("connection", "x"), ("a\r\nb", "c"), ("a:b", "c"),
     ("x", "1\r\nauthorization: y"), ("content-length", "5")],
    ids=lambda pair: repr(pair[0]),
)  # fmt: skip
async def test_a_malformed_request_costs_its_own_stream_only(extra: tuple[str, str]) -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        bad, good = client.ask("/bad", extra), client.ask("/good")
        await client.answered(bad)
        answer = await client.answered(good)
        await until(lambda: len(guest.records) == 2)

    assert client.reset_code(bad) == PROTOCOL_ERROR
    assert answer[":status"] == "200"
    assert server.peers[0].fields(1)[":path"] == "/good"
    assert sorted((record.status, record.outcome) for record in guest.records) == [(200, "forwarded"), (400, "refused")]


@pytest.mark.parametrize("sent", [b"1", b"12345678"], ids=["shorter", "longer"])
async def test_a_body_of_another_length_than_announced_is_reset_and_never_completed_upstream(sent: bytes) -> None:
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask("/", ("content-length", "5"), method="POST", end=False)
        client.send(stream, data=sent, end=True)
        await client.answered(stream)
        await until(lambda: bool(guest.records))
        complete = [peer.of(events.StreamEnded, 1) for peer in server.peers]

    assert client.reset_code(stream) == PROTOCOL_ERROR
    assert not any(complete)
    assert (guest.records[0].status, guest.records[0].outcome) == (400, "refused")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_methods_that_are_refused_in_http_1_are_refused_here(method: str) -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        number = client.h2.get_next_available_stream_id()
        head = [(":method", method), (":authority", "b.example:22")]
        if method == "TRACE":
            head = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", "/")]
        client.h2.send_headers(number, head)
        client.flush()

        assert (await client.answered(number))[":status"] == "405"


async def test_websockets_over_http_2_are_not_offered() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        await client.answered(client.ask())
        assert client.h2.remote_settings.enable_connect_protocol == 0
        stream = client.ask("/", (":protocol", "websocket"), method="CONNECT", end=False)
        await client.answered(stream)

    assert client.reset_code(stream) == PROTOCOL_ERROR


async def test_more_streams_than_allowed_are_refused_and_the_others_go_on() -> None:
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        streams = [client.ask(f"/{number}") for number in range(MAX_STREAMS + 5)]
        await client.until(lambda: sum(client.ended(stream) for stream in streams) >= 5)

    assert {client.reset_code(stream) for stream in streams[MAX_STREAMS:]} == {REFUSED_STREAM}
    assert {client.reset_code(stream) for stream in streams[:MAX_STREAMS]} == {None}


async def test_a_run_has_a_limit_of_its_own_over_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS_OF_A_RUN", 3)
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        address = guest.listen(RUN, "proxy")
        one, other = await h2_client(guest, address), await h2_client(guest, address)
        held = [one.ask(), one.ask()]
        await until(lambda: sum(len(peer.seen) > 2 for peer in server.peers) == 1)
        streams = [other.ask(), other.ask()]
        await other.until(lambda: other.ended(streams[1]))
        one.reset(held[0])
        await until(lambda: len(guest.records) == 1)
        again = other.ask()
        await until(lambda: sum(len(peer.of(events.RequestReceived, 7)) for peer in server.peers) == 1)

    assert other.reset_code(streams[1]) == REFUSED_STREAM
    assert other.reset_code(again) is None


async def test_a_rapid_reset_flood_ends_the_connection() -> None:
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        for _ in range(FLOOD_BURST + 50):
            client.reset(client.ask())
        await client.until(lambda: client.is_over)
        await until(lambda: any(record.status == 400 for record in guest.records))

    goodbye = [event for event in client.seen if isinstance(event, events.ConnectionTerminated)]
    assert goodbye[0].error_code == CALM


async def test_a_silent_connection_is_told_goodbye() -> None:
    async with h2_server() as server, h2_house(server.port, limits=Limits(idle_s=0.05)) as guest:
        client = await h2_client(guest)
        await client.until(lambda: client.is_over)

    assert any(isinstance(event, events.ConnectionTerminated) and event.error_code == 0 for event in client.seen)


async def test_dropping_the_run_ends_everything_on_both_sides() -> None:
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        client.ask()
        await until(lambda: bool(server.peers) and bool(server.peers[0].of(events.RequestReceived, 1)))
        guest.house.drop(RUN)
        await client.until(lambda: client.is_over)
        await until(lambda: server.closed == 1)

    assert [record.reason for record in guest.records] == ["the run was stopped"]


async def test_a_client_that_vanishes_cancels_all_its_requests_upstream() -> None:
    async with h2_server(silent) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        for _ in range(3):
            client.ask()
        await until(lambda: bool(server.peers) and bool(server.peers[0].of(events.RequestReceived, 5)))
        assert client.stream is not None
        client.stream.abort()
        await until(lambda: all(server.peers[0].of(events.StreamReset, stream) for stream in (1, 3, 5)))

    assert [record.reason for record in guest.records] == ["the client went away"] * 3


async def test_a_fault_of_our_own_costs_one_stream_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: LiveRun, arrival: Arrival, request: Request, trail: Trail) -> Passage:
        if request.target == "/broken":
            raise RuntimeError("a bug")
        return judge(run, arrival, request, trail)

    monkeypatch.setattr(module, "judge_anywhere", broken)
    async with h2_server() as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        bad, good = client.ask("/broken"), client.ask("/fine")
        await client.answered(bad)

        assert (await client.answered(good))[":status"] == "200"
        await until(lambda: len(guest.records) == 2)
    assert client.reset_code(bad) == 2
    assert "a fault of the proxy's own" in {record.reason for record in guest.records}


async def test_http_1_is_what_a_client_gets_that_offers_both() -> None:
    async with h2_server(ok) as server, h2_house(server.port) as guest:
        stream = await tls_client(guest, "h2", "http/1.1")

        assert stream.protocol == "http/1.1"
        stream.abort()


async def test_streams_without_leave_are_reset_and_others_and_the_connection_go_on() -> None:
    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived) and peer.fields(event.stream_id)[":path"] == "/held":
            peer.send(event.stream_id, (":status", "200"), data=b"begun")
        else:
            ok(peer, event)

    denied = NetworkPolicy(rules=(parse_rule(f"deny GET {HOST}/held"),))
    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        held, posted = client.ask("/held"), client.ask("/held", method="POST", end=False)
        await client.until(lambda: client.body(held) == client.body(posted) == b"begun")
        guest.house.put(a_run(rules=(RULE,)), {})
        assert (await client.answered(client.ask()))[":status"] == "200"
        assert client.reset_code(held) is None
        guest.house.put(a_run(rules=(RULE,), policy=denied), {})
        await client.answered(held)
        assert (client.reset_code(held), client.reset_code(posted)) == (8, None)
        guest.house.put(a_run(), {})
        await client.answered(posted)
        assert (await client.answered(client.ask()))[":status"] == "200"
        await until(lambda: len(guest.records) == 4)

    reasons = {record.reason for record in guest.records}
    assert reasons == {"", "the policy does not let it out any more", "a grant that was spent on it is gone"}


async def test_a_connection_that_leaves_ends_with_its_last_stream_and_takes_no_more() -> None:
    waiting: list[tuple[Peer, events.Event]] = []

    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            waiting.append((peer, event))

    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client, idle = await h2_client(guest), await h2_client(guest)
        stream = client.ask("/held")
        await until(lambda: bool(waiting))
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(guest.house.drain(30))
            await idle.until(lambda: False)
            late = client.ask("/late")
            await client.until(lambda: client.ended(late))
            assert not draining.done()
            ok(*waiting[0])
            await client.answered(stream)
            await client.until(lambda: False)

    assert idle.is_over
    assert client.reset_code(late) == REFUSED_STREAM
    assert client.fields(stream)[":status"] == "200"
