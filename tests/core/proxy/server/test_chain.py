"""A corporate proxy between the house and a real TLS server: what each of the two gets to see, and every refusal."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, Forward, Tcp, Upstream
from moat.api.http import Authority
from moat.api.rules import Match, SetHeader
from moat.net.route import ProxyRoute
from moat.proxy.refusal import Refusal
from moat.proxy.server.chain import open_tunnel
from moat.proxy.server.stream import PlainStream
from support.connect_proxy import EXPECTED, PASSWORD, ConnectProxy, connect_proxy
from support.tls_server import TlsServer, tls_server
from support.upstream import MadeCa, make_test_ca
from support.worker import RUN, a_run

from core.proxy.server.h2_peers import HOST as NEAR
from core.proxy.server.h2_peers import h2_client
from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import plain_pair, until

HOST = "api.example.com"
SECRET = "Bearer s3cr3t-of-the-upstream"
RULE = SetHeader(Match(HOST), "Authorization", SECRET, "example")
ROUTE = ProxyRoute("proxy.example", 3128)


@pytest.fixture(scope="module")
def ca() -> MadeCa:
    return make_test_ca()


@pytest.fixture
def server(ca: MadeCa) -> Iterator[TlsServer]:
    with tls_server(ca.server_context("*.example.com")) as running:
        yield running


@asynccontextmanager
async def behind(proxy: ConnectProxy, ca: MadeCa, **settings: object) -> AsyncIterator[Guest]:
    async with a_house(a_run(rules=(RULE,)), roots=ca.pem, **({"proxy": proxy.url} | settings)) as guest:  # type: ignore[arg-type] # mixed
        yield guest


async def get(guest: Guest, host: str = HOST) -> bytes:
    """Ask for / over TLS; return the answer."""
    client = await guest.tls_through(guest.listen(RUN, "proxy"), host)
    client.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    while b"moat: " not in client.buffer and not client.buffer.endswith(b"\r\n\r\nok"):
        assert await client.more()
    return bytes(client.buffer)


async def get_plain(guest: Guest, host: str) -> bytes:
    """Ask for / without TLS; return the answer."""
    client = await guest.connect(guest.listen(RUN, "proxy"))
    client.write(f"GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic x\r\n\r\n".encode())
    while b"moat: " not in client.buffer and not client.buffer.endswith(b"\r\n\r\nok"):
        assert await client.more()
    return bytes(client.buffer)


async def test_https_goes_through_a_tunnel_in_which_the_proxy_sees_nothing(ca: MadeCa, server: TlsServer) -> None:
    with connect_proxy({HOST: server.port}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await get(guest)

    assert answer.endswith(b"ok")
    assert SECRET.encode() in server.data
    assert EXPECTED.encode() not in server.data
    assert proxy.heads == [[f"CONNECT {HOST}:443 HTTP/1.1", f"Host: {HOST}:443", f"Proxy-Authorization: {EXPECTED}"]]


async def test_plain_http_goes_in_absolute_form_with_the_proxys_credentials_and_not_the_clients(ca: MadeCa) -> None:
    with tls_server(None) as plain, connect_proxy({"plain.example.com": plain.port}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await get_plain(guest, "plain.example.com")

    assert answer.endswith(b"ok")
    assert proxy.heads == [
        ["GET http://plain.example.com/x HTTP/1.1", "Host: plain.example.com", f"Proxy-Authorization: {EXPECTED}"]
    ]


@pytest.mark.parametrize("ask", [get, get_plain], ids=["https", "http"])
async def test_a_407_of_the_proxy_is_a_502_that_the_client_cannot_answer(ask: object, ca: MadeCa) -> None:
    assert callable(ask)
    with connect_proxy({}, wants="Basic another") as proxy:
        async with behind(proxy, ca) as guest:
            answer = await ask(guest, HOST)
            await until(lambda: bool(guest.records))

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"X-Moat-Error: proxy\r\n" in answer
    assert b"Proxy-Authenticate" not in answer
    assert "upstream.proxy" in guest.records[0].reason
    assert PASSWORD not in guest.records[0].reason + answer.decode()


async def in_http_2(guest: Guest, upstream: Upstream) -> dict[str, str]:
    """Ask for /x over HTTP/2, at an endpoint; return the fields of the answer."""
    endpoint = Endpoint(Tcp(NEAR), Forward(upstream))
    guest.house.put(replace(a_run(), endpoints=(endpoint,)), {})
    client = await h2_client(guest)
    return await client.answered(client.ask("/x"))


async def test_an_http_2_client_s_request_in_clear_goes_to_the_proxy_as_any_other(ca: MadeCa) -> None:
    with tls_server(None) as plain, connect_proxy({"plain.example.com": plain.port}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await in_http_2(guest, Upstream("plain.example.com", tls=False))

    assert answer[":status"] == "200"
    assert proxy.asked == ["GET http://plain.example.com/x HTTP/1.1"]
    assert EXPECTED.encode() not in plain.data


async def test_nor_can_an_http_2_client_answer_the_proxys_407(ca: MadeCa) -> None:
    with connect_proxy({}, wants="Basic another") as proxy:
        async with behind(proxy, ca) as guest:
            answer = await in_http_2(guest, Upstream("plain.example.com", tls=False))

    assert (answer[":status"], answer["x-moat-error"]) == ("502", "proxy")
    assert "proxy-authenticate" not in answer


async def test_http_2_in_clear_is_not_spoken_to_the_proxy(ca: MadeCa) -> None:
    with connect_proxy({}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await in_http_2(guest, Upstream("plain.example.com", tls=False, alpn=("h2",)))

    assert (answer[":status"], answer["x-moat-error"]) == ("502", "proxy")
    assert proxy.heads == []


async def test_a_host_that_the_proxy_refuses_is_a_502_with_its_status(ca: MadeCa) -> None:
    with connect_proxy({}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await get(guest)

    assert b"refused a tunnel to api.example.com (403)" in answer


async def test_a_certificate_is_verified_through_a_proxy_as_without(ca: MadeCa) -> None:
    with tls_server(ca.server_context("evil.example")) as evil, connect_proxy({HOST: evil.port}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await get(guest)

    assert b"X-Moat-Error: certificate\r\n" in answer
    assert evil.data == b""


async def test_pinned_hosts_and_those_of_no_proxy_are_reached_directly(ca: MadeCa, server: TlsServer) -> None:
    with connect_proxy({}) as proxy:
        async with behind(proxy, ca, resolve={HOST: server.pin}) as guest:
            pinned = await get(guest)
        async with behind(proxy, ca, no_proxy=("127.0.0.1",), allow_cidrs=("127.0.0.0/8",)) as guest:
            with tls_server(None) as plain:
                excepted = await get_plain(guest, plain.pin)

    assert (pinned[-2:], excepted[-2:]) == (b"ok", b"ok")
    assert proxy.asked == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::ffff:7f00:1]", "localhost", "a.localhost"]
)
async def test_inner_addresses_and_the_proxys_own_machine_are_not_asked_of_it(host: str, ca: MadeCa) -> None:
    with connect_proxy({host.strip("[]"): 1}) as proxy:
        async with behind(proxy, ca) as guest:
            answer = await get_plain(guest, host)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert proxy.asked == []


async def test_a_proxy_that_is_not_there_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with a_house(a_run(), proxy=f"http://moat:s3cr3t-pass@127.0.0.1:{port}") as guest:
        answer = await get(guest)

    assert f"the proxy 127.0.0.1:{port} cannot be reached: connection refused".encode() in answer
    assert b"X-Moat-Error: refused\r\n" in answer
    assert b"s3cr3t" not in answer


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (b"", 502, "broke off"),
        (b"SSH-2.0-x\r\n\r\n", 502, "broke off"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, 502, "broke off"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, 502, "broke off"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", 502, r"\(503\)"),
        (None, 504, "made no tunnel"),
    ],
    ids=["nothing", "no HTTP", "interim flood", "endless head", "503", "silence"],
)
async def test_a_proxy_that_makes_no_tunnel_is_refused(said: bytes | None, status: int, reason: str) -> None:
    near, far = await plain_pair()
    if said is not None:
        far.write(said)
        far.close()
    with pytest.raises(Refusal, match=reason) as refusal:
        await open_tunnel(near, ROUTE, Authority("https", HOST, 443), limit_s=5 if said is not None else 0.01)
    near.abort()
    far.abort()

    assert refusal.value.status == status


async def test_an_ipv6_literal_is_asked_for_in_brackets() -> None:
    near, far = await plain_pair()
    far.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await open_tunnel(near, ROUTE, Authority("https", "2001:db8::1", 8443))
    assert await _head(far) == b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"
    near.abort()
    far.abort()


async def _head(stream: PlainStream) -> bytes:
    if not stream.buffer:
        await stream.more()
    return bytes(stream.buffer)
