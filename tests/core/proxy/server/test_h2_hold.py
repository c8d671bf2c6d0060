from __future__ import annotations

import pytest
from h2 import events
from moat.api.rules import Match, ReplaceToken
from moat.proxy.limits import Limits
from support.worker import a_run

from core.proxy.server.h2_peers import HOST, Client, Peer, h2_client, h2_house, h2_server

JSON = ("content-type", "application/json")
PLACEHOLDER = "moat-placeholder"
VALUE = "s3cr3t-of-the-upstream"


def a_rule(limit_bytes: int = 1_000_000, *, require: bool = False) -> ReplaceToken:
    return ReplaceToken(Match(HOST), PLACEHOLDER, VALUE, ("body",), limit_bytes, require, "example")


def after_the_body(peer: Peer, event: events.Event) -> None:
    if isinstance(event, events.StreamEnded):
        peer.send(event.stream_id, (":status", "200"), end=True)


async def exchanged(rule: ReplaceToken, *pieces: bytes, fields: tuple[tuple[str, str], ...] = (JSON,)) -> tuple[
    dict[str, str], Peer | None, tuple[str, ...]
]:  # fmt: skip
    """Post pieces; return the answer's fields, the upstream's side and the grants that were recorded."""
    async with h2_server(after_the_body) as server, h2_house(server.port, limits=Limits(body_idle_s=5.0)) as guest:
        guest.house.put(a_run(rules=(rule,)), {})
        client = await h2_client(guest)
        stream = client.ask("/", *fields, method="POST", end=False)
        await _send(client, stream, fields, pieces)
        answer = await client.answered(stream)
        peer = server.peers[0] if server.peers else None
        return answer, peer, guest.records[0].grants if guest.records else ()


async def _send(client: Client, stream: int, fields: tuple[tuple[str, str], ...], pieces: tuple[bytes, ...]) -> None:
    if ("expect", "100-continue") in fields:
        await client.until(lambda: bool(client.of(events.InformationalResponseReceived, stream)))
    for piece in pieces:
        client.send(stream, data=piece)
    client.h2.end_stream(stream)
    client.flush()


async def test_a_placeholder_over_two_frames_is_replaced_and_the_length_is_the_new_one() -> None:
    body = f'{{"key": "{PLACEHOLDER}"}}'.encode()
    fields = (JSON, ("content-length", str(len(body))))
    answer, peer, grants = await exchanged(a_rule(), body[:12], body[12:], fields=fields)

    wanted = body.replace(PLACEHOLDER.encode(), VALUE.encode())
    assert answer[":status"] == "200"
    assert peer is not None
    assert (peer.body(1), peer.fields(1)["content-length"]) == (wanted, str(len(wanted)))
    assert grants == ("example",)


async def test_a_body_of_unknown_length_stays_one() -> None:
    answer, peer, _ = await exchanged(a_rule(), PLACEHOLDER.encode())

    assert answer[":status"] == "200"
    assert peer is not None
    assert peer.body(1) == VALUE.encode()
    assert "content-length" not in peer.fields(1)


@pytest.mark.parametrize("fields", [(JSON,), (JSON, ("content-length", "40016"))], ids=["unknown", "known"])
async def test_a_body_beyond_the_limit_goes_out_as_it_came(fields: tuple[tuple[str, str], ...]) -> None:
    body = PLACEHOLDER.encode() + bytes(40_000)
    answer, peer, grants = await exchanged(
        a_rule(1_000), *(body[at : at + 10_000] for at in range(0, len(body), 10_000)), fields=fields
    )

    assert answer[":status"] == "200"
    assert peer is not None
    assert peer.body(1) == body
    assert grants == ()


async def test_a_body_that_must_hold_the_placeholder_and_does_not_never_leaves() -> None:
    answer, peer, _ = await exchanged(a_rule(require=True), b'{"key": "my own"}')

    assert answer[":status"] == "403"
    assert peer is None


async def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    answer, peer, _ = await exchanged(a_rule(), PLACEHOLDER.encode(), fields=(JSON, ("expect", "100-continue")))

    assert answer[":status"] == "200"
    assert peer is not None
    assert "expect" not in peer.fields(1)
    assert peer.body(1) == VALUE.encode()


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async with h2_server() as server, h2_house(server.port, limits=Limits(body_idle_s=0.02)) as guest:
        guest.house.put(a_run(rules=(a_rule(),)), {})
        client = await h2_client(guest)
        answer = await client.answered(client.ask("/", JSON, method="POST", end=False))

    assert answer[":status"] == "408"
    assert server.peers == []
