from __future__ import annotations

import asyncio
from functools import partial

import pytest
from h2 import events
from moat.api.rules import Match, ReadUsage
from moat.proxy.http2 import CANCEL, INTERNAL_ERROR, NO_ERROR, WINDOW_BYTES
from moat.proxy.limits import Limits

from core.proxy.server.h2_peers import HOST, RULE, Client, Peer, h2_client, h2_house, h2_server
from core.proxy.server.pairs import until


def echo(peer: Peer, event: events.Event) -> None:
    """Send each piece back as it comes, and the trailers at the end."""
    if isinstance(event, events.RequestReceived):
        peer.send(event.stream_id, (":status", "200"))
    elif isinstance(event, events.DataReceived) and event.data:
        peer.send(event.stream_id, data=bytes(event.data))
    elif isinstance(event, events.StreamEnded):
        peer.send(event.stream_id, ("grpc-status", "0"), end=True)


async def test_both_directions_stream_at_once_with_trailers() -> None:
    async with h2_server(echo) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask("/", method="POST", end=False)
        for piece in (b"one", b"two"):
            client.send(stream, data=piece)
            await client.until(partial(_has, client, stream, piece))
        client.send(stream, ("x-sum", "2"), end=True)
        answer = await client.answered(stream)
        await until(lambda: bool(guest.records))

    assert answer["grpc-status"] == "0"
    assert server.peers[0].fields(1)["x-sum"] == "2"
    assert (guest.records[0].request_bytes, guest.records[0].response_bytes) == (6, 6)


def _has(client: Client, stream: int, piece: bytes) -> bool:
    return client.body(stream).endswith(piece)


async def test_interim_answers_and_alternatives_are_what_they_are_in_http_1() -> None:
    def hint(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "103"), ("link", "x"))
            peer.send(event.stream_id, (":status", "204"), ("alt-svc", "h3"), ("x", "y"), end=True)

    async with h2_server(hint) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        answer = await client.answered(stream)

    assert len(client.of(events.InformationalResponseReceived, stream)) == 1
    assert (answer[":status"], answer["x"]) == ("204", "y")
    assert "alt-svc" not in answer


async def test_head_has_a_length_and_no_body() -> None:
    def sized(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"), ("content-length", "5"))
            peer.send(event.stream_id, data=b"", end=True)

    async with h2_server(sized) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask(method="HEAD"))
        after = await client.answered(client.ask(method="HEAD"))

    assert answer["content-length"] == after["content-length"] == "5"
    assert len(server.peers) == 1


async def test_an_answer_before_the_bodys_end_stops_the_body_both_ways() -> None:
    def refuse(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "413"), data=b"too large", end=True)

    async with h2_server(refuse) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        answer = await client.answered(stream)
        await client.until(lambda: client.reset_code(stream) is not None)
        await until(lambda: server.peers[0].reset_code(1) is not None)

    assert (answer[":status"], client.body(stream)) == ("413", b"too large")
    assert (client.reset_code(stream), server.peers[0].reset_code(1)) == (NO_ERROR, NO_ERROR)


async def test_a_client_that_cancels_cancels_upstream_and_nothing_else() -> None:
    def hold(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"), data=b"first")

    async with h2_server(hold) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        gone, other = client.ask("/gone"), client.ask("/other")
        await client.until(lambda: client.body(gone) == client.body(other) == b"first")
        client.reset(gone)
        await until(lambda: server.peers[0].reset_code(1) is not None)
        server.peers[0].send(3, data=b"second", end=True)
        await client.answered(other)
        await until(lambda: len(guest.records) == 2)

    assert server.peers[0].reset_code(1) == CANCEL
    assert client.body(other) == b"firstsecond"
    assert {(record.path, record.reason) for record in guest.records} == {("/gone", "the client went away"),
                                                                         ("/other", "")}  # fmt: skip


@pytest.mark.parametrize(
    ("wreck", "code"),
    [(lambda peer: peer.reset(1, 11), 11), (lambda peer: peer.send(1, data=b"x" * 9, end=True), INTERNAL_ERROR),
     (lambda peer: peer.send(1, data=b"x", end=True), INTERNAL_ERROR),
     (lambda peer: peer.write(b"\0\0\0\x09\0\0\0\0\0"), INTERNAL_ERROR)],
    ids=["a reset", "a body too long", "a body too short", "no HTTP/2 any more"],
)  # fmt: skip
async def test_an_answer_that_breaks_off_is_a_reset_for_the_client(wreck: object, code: int) -> None:
    def begin(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"), ("content-length", "4"), data=b"be")

    async with h2_server(begin) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        await client.until(lambda: client.body(stream) == b"be")
        peer = server.peers[0]
        peer.h2.config.validate_outbound_headers = False
        assert callable(wreck)
        wreck(peer)
        await client.answered(stream)
        await until(lambda: bool(guest.records))

    assert client.reset_code(stream) in (code, 1)
    assert guest.records[0].reason == "the upstream broke off"


def no_answer(peer: Peer, event: events.Event) -> None:
    """Answer each request by a reset."""
    if isinstance(event, events.RequestReceived):
        peer.reset(event.stream_id, 2)


def endless_hints(peer: Peer, event: events.Event) -> None:
    if isinstance(event, events.RequestReceived):
        for _ in range(20):
            peer.send(event.stream_id, (":status", "103"))


def changing(peer: Peer, event: events.Event) -> None:
    if isinstance(event, events.RequestReceived):
        peer.h2.config.validate_outbound_headers = peer.h2.config.normalize_outbound_headers = False
        peer.send(event.stream_id, (":status", "200"), ("transfer-encoding", "chunked"), data=b"x", end=True)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(no_answer, "reset the request"), (endless_hints, "interim"), (changing, "name is none that HTTP/2 has")],
)
async def test_an_upstream_that_makes_no_sense_is_a_502(answer: object, reason: str) -> None:
    assert callable(answer)
    async with h2_server(answer) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        found = await client.answered(client.ask(method="POST"))
        await until(lambda: bool(guest.records))

    assert found[":status"] == "502"
    assert reason in guest.records[0].reason


async def test_an_upstream_that_says_nothing_is_a_504_and_a_client_that_stops_a_408() -> None:
    limits = Limits(first_byte_s=0.05, body_idle_s=0.02)
    async with h2_server(lambda peer, event: None) as server, h2_house(server.port, limits=limits) as guest:
        client = await h2_client(guest)
        asked = await client.answered(client.ask())
        stopped = await client.answered(client.ask(method="POST", end=False))

    assert (asked[":status"], stopped[":status"]) == ("504", "408")


async def test_an_upstream_has_its_whole_time_from_the_end_of_a_slow_upload_on() -> None:
    limit_s, clock = 0.4, asyncio.get_running_loop().time
    limits = Limits(first_byte_s=limit_s)
    async with h2_server(lambda peer, event: None) as server, h2_house(server.port, limits=limits) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        ready_at = clock() + 0.75 * limit_s
        await until(lambda: clock() > ready_at)
        ended_at = clock()
        client.send(stream, data=b"late", end=True)
        answer = await client.answered(stream)
        waited_s = clock() - ended_at

    assert answer[":status"] == "504"
    assert waited_s >= limit_s


async def test_once_there_is_an_answer_the_client_may_be_silent_for_as_long_as_it_likes() -> None:
    async with h2_server(echo) as server, h2_house(server.port, limits=Limits(body_idle_s=1.0)) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST", end=False)
        await client.until(lambda: ":status" in client.fields(stream))
        await asyncio.sleep(1.2)  # longer than the limit, which must not matter
        client.send(stream, data=b"still here", end=True)
        await client.answered(stream)

    assert client.body(stream) == b"still here"


async def test_a_request_that_was_given_back_unseen_is_sent_again() -> None:
    refused: list[int] = []

    def refuse_once(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            if refused:
                return peer.send(event.stream_id, (":status", "200"), data=b"ok", end=True)
            refused.append(event.stream_id)
            peer.reset(event.stream_id, 7)
        return None

    async with h2_server(refuse_once) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask(method="POST")
        answer = await client.answered(stream)
        await until(lambda: bool(guest.records))

    assert (answer[":status"], client.body(stream)) == ("200", b"ok")
    assert len(guest.records) == 1


async def filled(client: Client, stream: int) -> int:
    """Send as much of a body as there is room for; return how much."""
    sent = 0
    while room := min(client.h2.local_flow_control_window(stream), 16_384):
        client.send(stream, data=bytes(room))
        sent += room
    return sent


async def test_an_upstream_that_takes_nothing_stops_the_client_within_two_windows() -> None:
    async with h2_server(lambda peer, event: None) as server, h2_house(server.port) as guest:
        server.acknowledges = False
        client = await h2_client(guest)
        await client.until(lambda: client.h2.remote_settings.initial_window_size == WINDOW_BYTES)
        stream = client.ask(method="POST", end=False)
        sent = await filled(client, stream)
        await until(lambda: len(server.peers) == 1 and len(server.peers[0].body(1)) == 65_535)
        sent += await filled(client, stream)

    assert sent <= WINDOW_BYTES + 65_535 + WINDOW_BYTES // 2


async def test_an_upstream_that_gives_no_more_room_is_given_up_and_its_other_streams_go_on() -> None:
    def serve(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived) and event.stream_id > 1:
            peer.send(event.stream_id, (":status", "204"), end=True)

    limits = Limits(upload_idle_s=0.2)
    async with h2_server(serve) as server, h2_house(server.port, limits=limits) as guest:
        server.acknowledges = False
        client = await h2_client(guest)
        await client.until(lambda: client.h2.remote_settings.initial_window_size == WINDOW_BYTES)
        stream = client.ask(method="POST", end=False)
        await filled(client, stream)
        answer = await client.answered(stream)
        other = await client.answered(client.ask())
        await until(lambda: len(guest.records) == 2)

    assert (answer[":status"], other[":status"]) == ("504", "204")
    assert b"upstream.upload_idle_minutes" in client.body(stream)
    assert len(server.peers) == 1
    assert server.peers[0].reset_code(1) == CANCEL


async def test_an_upstream_may_be_as_slow_as_it_likes_with_what_it_takes() -> None:
    limit_s, clock = 1.0, asyncio.get_running_loop().time
    async with (
        h2_server(lambda peer, event: None) as server,
        h2_house(server.port, limits=Limits(upload_idle_s=limit_s)) as guest,
    ):
        server.acknowledges = False
        client = await h2_client(guest)
        await client.until(lambda: client.h2.remote_settings.initial_window_size == WINDOW_BYTES)
        stream = client.ask(method="POST", end=False)
        await filled(client, stream)
        await until(lambda: len(server.peers) == 1 and len(server.peers[0].body(1)) == 65_535)
        late = clock() + 2 * limit_s
        while clock() < late:  # a byte now and then, much sooner than the limit
            server.peers[0].h2.increment_flow_control_window(1, 1)
            server.peers[0].h2.increment_flow_control_window(1)
            server.peers[0].flush()
            await asyncio.sleep(limit_s / 20)
        assert not client.ended(stream)
        assert not guest.records


async def test_a_client_that_reads_nothing_stops_the_upstream_within_two_windows() -> None:
    sent = [0]

    def pour(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived) and event.stream_id > 1:
            return peer.send(event.stream_id, (":status", "204"), end=True)
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"))
        if isinstance(event, events.RequestReceived | events.WindowUpdated) and event.stream_id == 1:
            while (room := min(peer.h2.local_flow_control_window(1), 16_384)) > 0:
                peer.send(1, data=bytes(room))
                sent[0] += room
        return None

    async with h2_server(pour) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        client.acknowledges = False
        stream = client.ask()
        await client.until(lambda: len(client.body(stream)) == 65_535)
        await client.answered(client.ask("/other"))  # which the one that is not read does not stop

    assert 65_535 < sent[0] <= 65_535 + WINDOW_BYTES + WINDOW_BYTES // 2


async def test_a_credential_that_comes_back_is_removed_from_head_body_and_trailers() -> None:
    def parrot(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            said = peer.fields(event.stream_id)["authorization"].removeprefix("Bearer ")
            peer.send(event.stream_id, (":status", "200"), ("x-you-said", said), data=f"you said {said[:9]}".encode())
            peer.send(event.stream_id, data=f"{said[9:]}, did you?".encode())
            peer.send(event.stream_id, ("grpc-message", said), end=True)

    async with h2_server(parrot) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        answer = await client.answered(stream)

    assert "s3cr3t" not in repr(answer)
    assert client.body(stream).startswith(b"you said [moat:redacted")
    assert client.body(stream).endswith(b", did you?")
    assert b"s3cr3t" not in client.body(stream)


async def test_an_answer_in_single_bytes_is_the_same_answer() -> None:
    def drip(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            write, peer.write = peer.write, lambda data: [write(bytes((byte,))) for byte in data]
            peer.send(event.stream_id, (":status", "200"), data=b"ok")
            peer.send(event.stream_id, ("grpc-status", "0"), end=True)

    async with h2_server(drip) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        answer = await client.answered(stream)

    assert (client.body(stream), answer["grpc-status"]) == (b"ok", "0")


async def test_trailers_that_come_with_an_empty_body_are_not_lost() -> None:
    def bare(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.h2.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
            peer.send(event.stream_id, ("grpc-status", "5"), end=True)

    async with h2_server(bare) as server, h2_house(server.port) as guest:
        client = await h2_client(guest)
        answer = await client.answered(client.ask())

    assert (answer[":status"], answer["grpc-status"]) == ("200", "5")


async def test_what_a_model_s_answer_says_of_tokens_is_recorded() -> None:
    body = b'data: {"model": "big-1", "usage": {"input_tokens": 7, "output_tokens": 3}}\n\n'

    def say(peer: Peer, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            peer.send(event.stream_id, (":status", "200"), ("content-type", "text/event-stream"))
            peer.send(event.stream_id, data=body, end=True)

    async with h2_server(say) as server, h2_house(server.port, rules=(RULE, ReadUsage(Match(HOST)))) as guest:
        client = await h2_client(guest)
        stream = client.ask()
        await client.answered(stream)
        await until(lambda: bool(guest.records))

    (record,) = guest.records
    assert client.body(stream) == body
    assert (record.model, record.input_tokens, record.output_tokens, record.protocol) == ("big-1", 7, 3, "h2")
    assert 0 < record.first_byte_ms <= record.duration_ms
