from __future__ import annotations

import asyncio
import hashlib

import pytest
from h2 import events
from moat.api.rules import Match, Sign
from moat.api.signing import Signed
from moat.proxy.messages import Ask, AskSignature, Captured, Signature
from support.worker import a_run

from core.proxy.server.h2_peers import HOST, Peer, h2_client, h2_house, h2_server

SIGNED = Signed("/signed?x=1", (("authorization", "s3cr3t-signature"),), ("x-date",), ("s3cr3t-token",))


def after_the_body(peer: Peer, event: events.Event) -> None:
    if isinstance(event, events.StreamEnded):
        peer.send(event.stream_id, (":status", "200"), data=b"it was s3cr3t-token", end=True)


Posted = tuple[dict[str, str], bytes, list[AskSignature], Peer | None, str]


async def posted(answer: Signature) -> Posted:
    """Post a body over HTTP/2 and have it signed. Return what came, what was asked, what arrived, who was recorded."""
    asked: list[AskSignature] = []
    async with h2_server(after_the_body) as server, h2_house(server.port) as guest:

        def sign(message: Ask | AskSignature | Captured) -> None:
            assert isinstance(message, AskSignature)
            asked.append(message)
            made = Signature(message.id, answer.signed, answer.problem, answer.status)
            asyncio.get_running_loop().call_soon(guest.house.answered, made)

        guest.house._asks._send = sign
        guest.house.put(a_run(rules=(Sign(Match(HOST), "aws", "x-digest"),)), {})
        client = await h2_client(guest)
        stream = client.ask("/", ("authorization", "mine"), ("x-date", "then"), method="POST", end=False)
        client.send(stream, data=b"the body", end=True)
        fields = await client.answered(stream)
        grants = ",".join(guest.records[0].grants)
        return fields, client.body(stream), asked, server.peers[0] if server.peers else None, grants


async def test_a_request_leaves_signed_and_what_signed_it_does_not_come_back() -> None:
    fields, body, (asked,), peer, grants = await posted(Signature(0, SIGNED))

    assert (fields[":status"], grants) == ("200", "aws")
    assert b"s3cr3t-token" not in body
    assert body.startswith(b"it was ")
    assert peer is not None
    sent = peer.fields(1)
    assert (sent[":path"], sent["authorization"], peer.body(1)) == ("/signed?x=1", "s3cr3t-signature", b"the body")
    assert "x-date" not in sent
    request = asked.request
    assert (asked.grant, request.method, request.target, request.authority.partition(":")[0]) == (
        "aws",
        "POST",
        "/",
        HOST,
    )
    assert request.body_sha256 == hashlib.sha256(b"the body").hexdigest()
    assert request.headers.get("authorization") == "mine"


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Signature(0, None, "another key", 403), "403"), (Signature(0, None, "no session"), "502"), (Signature(0), "502")],
)
async def test_what_is_not_signed_does_not_leave_and_the_run_is_told_why(answer: Signature, status: str) -> None:
    fields, body, _, peer, grants = await posted(answer)

    assert (fields[":status"], peer, grants) == (status, None, "")
    assert (answer.problem or "its daemon's log says why").encode() in body


async def test_what_nobody_signed_passes_and_no_grant_is_spent() -> None:
    fields, _, _, peer, grants = await posted(Signature(0, Signed("/", is_spent=False)))

    assert (fields[":status"], grants) == ("200", "")
    assert peer is not None
    assert peer.fields(1)["authorization"] == "mine"
