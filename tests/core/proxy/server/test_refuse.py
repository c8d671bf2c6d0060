from __future__ import annotations

import pytest
from moat.proxy.http1 import read_request
from moat.proxy.limits import Limits
from moat.proxy.refusal import Refusal
from moat.proxy.server.refuse import keeps, refuse

from core.proxy.server.pairs import plain_pair, turns_during

GET = "GET / HTTP/1.1\r\nHost: a.example"


@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (GET, True),
        (f"{GET}\r\nConnection: close", False),
        (f"{GET}\r\nContent-Length: 5", False),
    ],
)
async def test_a_refusal_says_whether_the_connection_goes_on(head: str, is_kept: bool) -> None:
    request, refusal = read_request(head), Refusal(403, "no", keeps=True)
    client, server = await plain_pair()
    assert keeps(refusal, request) == is_kept
    await refuse(server, refusal, Limits(linger_s=0.01), request)
    assert client.buffer or await client.more()

    assert (b"Connection: close" in client.buffer) != is_kept
    client.abort()
    server.abort()


async def test_others_have_their_turns_between_requests_that_came_at_once() -> None:
    client, server = await plain_pair()
    server.buffer += b"the next one"

    async def refuse_all() -> None:
        for _ in range(50):
            await refuse(server, Refusal(403, "no", keeps=True), Limits(), read_request(GET))

    _, turns = await turns_during(refuse_all())
    client.abort()
    server.abort()
    assert turns >= 50
