from __future__ import annotations

import asyncio
import ssl

import pytest
from moat.proxy.server.greeting import NoHandshake, greet
from moat.proxy.server.stream import PlainStream
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import client_context

from core.proxy.server.pairs import CA, LEAVES, plain_pair

HOST = "api.example.com"


async def greeted(*protocols: str) -> tuple[TlsStream, TlsStream]:
    """Return both ends of a handshake with a client that offers protocols."""
    below, stream = await plain_pair()
    context = client_context(CA.certificate_pem, protocols) if protocols else ssl.create_default_context()
    if not protocols:
        context.load_verify_locations(cadata=CA.certificate_pem)
    client = TlsStream(below, context, server_hostname=HOST)
    async with asyncio.TaskGroup() as group:
        server = group.create_task(greet(stream, LEAVES, HOST, 5))
        await client.handshake()
    return client, server.result()


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [((), ""), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1"), (("h2",), "h2"), (("x",), "")],
    ids=["nothing", "http/1.1", "both", "h2", "something else"],
)
async def test_http_1_is_agreed_on_unless_nothing_but_http_2_is_offered(offered: tuple[str, ...], agreed: str) -> None:
    client, server = await greeted(*offered)

    assert (client.protocol, server.protocol) == (agreed, agreed)
    client.abort()
    server.abort()


async def refusal_of(data: bytes, *, ends: bool = False, limit_s: float = 5) -> tuple[str, bytes]:
    """Return why a client that sends data is refused, and what it gets."""
    client, server = await plain_pair()
    client.write(data)
    if ends:
        client.transport.write_eof()
    with pytest.raises(NoHandshake) as refused:
        await greet(server, LEAVES, HOST, limit_s)
    server.close()
    answer = await _rest(client)
    client.abort()
    return str(refused.value), answer


async def _rest(stream: PlainStream) -> bytes:
    while await stream.more():
        pass
    return bytes(stream.buffer)


async def test_what_is_no_hello_gets_an_alert() -> None:
    reason, answer = await refusal_of(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")

    assert "not understood" in reason
    assert answer.startswith(b"\x15\x03")


async def test_a_hello_that_openssl_does_not_like_gets_openssls_alert() -> None:
    body = b"\x03\x03" + bytes(32) + b"\x00\x00\x02\x00\x00\x01\x00"
    message = b"\x01" + len(body).to_bytes(3) + body
    reason, answer = await refusal_of(b"\x16\x03\x01" + len(message).to_bytes(2) + message)

    assert "not understood" in reason
    assert answer.startswith(b"\x15\x03")


async def test_an_end_and_a_silence_in_the_hello_are_told_apart() -> None:
    assert (await refusal_of(b"\x16\x03", ends=True))[0] == "the client broke off the TLS handshake"
    assert (await refusal_of(b"\x16\x03", limit_s=0.02))[0] == "the client did not finish the TLS handshake"


async def test_a_hello_that_comes_byte_by_byte_is_a_hello() -> None:
    below, stream = await plain_pair()
    client = TlsStream(below, client_context(CA.certificate_pem, ("h2",)), server_hostname=HOST)
    real = below.write

    def drip(data: bytes | memoryview) -> None:
        for byte in data:
            real(bytes((byte,)))

    below.write = drip  # type: ignore[method-assign]  # only this client's
    async with asyncio.TaskGroup() as group:
        server = group.create_task(greet(stream, LEAVES, HOST, 5))
        await client.handshake()

    assert server.result().protocol == "h2"
    client.abort()
    server.result().abort()
