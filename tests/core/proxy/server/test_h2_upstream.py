from __future__ import annotations

import pytest
from h2 import events
from moat.api.http import Authority
from moat.proxy.server import h2_upstream as module
from moat.proxy.server.h2_far import OverHttp1
from moat.proxy.server.pool import Key
from support.worker import OTHER_RUN, RUN, a_run

from core.proxy.server.h2_peers import HOST, RULE, Peer, h2_client, h2_house, h2_server, ok
from core.proxy.server.house_of import Guest
from core.proxy.server.pairs import until
from core.proxy.server.test_h2_far import END, OK, http1


def upstreams(guest: Guest) -> module.Upstreams:
    services = guest.house._services
    assert services is not None
    return services.h2.upstreams


async def test_many_streams_of_a_run_share_one_connection() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        address = guest.listen(RUN, "proxy")
        clients = [await h2_client(guest, address) for _ in range(3)]
        streams = [(client, client.ask()) for client in clients for _ in range(10)]
        for client, stream in streams:
            assert (await client.answered(stream))[":status"] == "200"

    assert len(server.peers) == 1


async def test_two_runs_never_share_one() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        guest.house.put(a_run(OTHER_RUN, (RULE,), token="s3cr3t-other"), {})
        for run_id in (RUN, OTHER_RUN):
            client = await h2_client(guest, guest.listen(run_id, "proxy"))
            await client.answered(client.ask())

    assert len(server.peers) == 2


async def test_a_connection_that_says_goodbye_finishes_and_is_not_used_again() -> None:
    def leave(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if len(server.peers) == 1:
                peer.write(b"\0\0\x08\x07\0\0\0\0\0" + event.stream_id.to_bytes(4) + bytes(4))
            ok(peer, event)

    async with h2_server(leave) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        first = await client.answered(client.ask())
        second = await client.answered(client.ask())

    assert (first[":status"], second[":status"]) == ("200", "200")
    assert len(server.peers) == 2


async def test_requests_that_a_goodbye_left_out_are_sent_on_another_connection() -> None:
    def leave(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if len(server.peers) == 1:
                peer.write(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
            else:
                ok(peer, event)

    async with h2_server(leave) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask(method="POST"))

    assert answer[":status"] == "200"
    assert len(server.peers) == 2


async def test_a_server_that_allows_one_stream_gets_more_connections() -> None:
    held: list[tuple[Peer, int]] = []

    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            held.append((peer, event.stream_id))

    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        warm = client.ask()
        await until(lambda: len(held) == 1)
        server.peers[0].h2.update_settings({3: 1})
        server.peers[0].flush()
        await until(lambda: any(isinstance(event, events.SettingsAcknowledged) for event in server.peers[0].seen[3:]))
        client.ask()
        await until(lambda: len(held) == 2)

    assert held[0][0] is not held[1][0]
    assert client.reset_code(warm) is None


async def test_a_server_that_wants_http_1_is_asked_in_http_1() -> None:
    def want(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.reset(event.stream_id, 13)

    async with h2_server(want) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask())

        known, authority = upstreams(guest), Authority("https", HOST, 443)
        far = await known.reach(Key(RUN, authority, ()))
        far.leave()
    assert isinstance(far, OverHttp1)
    assert answer[":status"] == "502"  # this one speaks HTTP/2 only, after all


async def test_a_server_without_http_2_is_remembered() -> None:
    async with http1((END, OK)) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        await client.answered(client.ask())
        known = upstreams(guest)

        assert known._is_without(Key(RUN, Authority("https", HOST, 443), ()))
        assert not known._is_without(Key(RUN, Authority("https", "b.example", 443), ()))


async def test_a_full_handshake_is_resumed_by_the_next_connection() -> None:
    resumed: list[bool] = []

    def one_each(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            resumed.append(bool(peer.tls and peer.tls.session_reused))
            ok(peer, event)
            peer.write(b"\0\0\x08\x07\0\0\0\0\0" + event.stream_id.to_bytes(4) + bytes(4))

    async with h2_server(one_each) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        for _ in range(3):
            await client.answered(client.ask())
            upstreams(guest)._sweep_out()  # what said goodbye is closed, and its session kept
            await until(lambda: not upstreams(guest)._sites)

    assert resumed == [False, True, True]


async def test_idle_connections_are_closed_after_a_while_and_busy_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.02)

    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived) and not peer.fields(event.stream_id)[":path"].startswith("/hold"):
            ok(peer, event)

    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        held = client.ask("/hold")
        await until(lambda: len(server.peers) == 1 and bool(server.peers[0].of(events.RequestReceived, 1)))
        for _ in range(4):
            await client.answered(client.ask())
        assert server.closed == 0
        client.reset(held)
        await until(lambda: server.closed == 1)
        await until(lambda: not upstreams(guest)._sites)


async def test_closing_leaves_what_is_in_use_and_closes_it_later() -> None:
    held: list[tuple[Peer, int]] = []

    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            held.append((peer, event.stream_id))

    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        await until(lambda: len(held) == 1)
        upstreams(guest).close()
        held[0][0].send(held[0][1], (":status", "200"), data=b"ok", end=True)
        await client.answered(stream)
        upstreams(guest).close()
        await until(lambda: server.closed == 1)

    assert client.body(stream) == b"ok"


async def test_a_name_that_cannot_be_reached_is_not_remembered() -> None:
    async with h2_house(1) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask())

        assert answer[":status"] == "502"
        assert not upstreams(guest)._sites


async def test_the_upstreams_certificate_is_verified() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        upstreams(guest)._pool.dialler._roots = ""
        client = await h2_client(guest)
        answer = await client.answered(client.ask())

    assert (answer[":status"], answer["x-moat-error"]) == ("502", "certificate")
    assert server.peers == [] or not server.peers[0].of(events.RequestReceived, 1)


async def test_a_server_that_allows_no_streams_holds_no_pile_of_connections() -> None:
    async with h2_server() as server, h2_house(server.port) as guest:
        server.settings = {3: 0}
        client = await h2_client(guest)
        statuses = [(await client.answered(client.ask()))[":status"] for _ in range(10)]
        await until(lambda: len(server.peers) - server.closed <= 1)

    assert set(statuses) <= {"200", "502"}  # a request may be sent before that word has come
