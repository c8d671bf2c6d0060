"""Upgraded connections: judged like any request, counted, cut when silent, and cut when their leave is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from core.proxy.server.house_of import Guest, a_house
from core.proxy.server.pairs import until
from moat.api.endpoints import Endpoint, Forward, ProxyPath, Upstream
from moat.api.rules import Match, SetHeader
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunContext
from moat.proxy.limits import Limits
from moat.proxy.server.tls import TlsStream
from support.proxied import RULE, proxied
from support.upstream import make_test_ca
from support.worker import OTHER_RUN, RUN, TOKEN, a_run

HOST = "api.example.com"
UPGRADE = f"GET /socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode()
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
PING, PONG = b"\0\0\0\1\0\0\0\4ping", b"\0\0\0\1\0\0\0\4pong"  # frames of data (SPDY/3.1)
CA = make_test_ca()


@dataclass
class Echo:
    """A server that upgrades whoever asks and then sends back what it hears; it remembers heads and ends."""

    pin: str = ""
    heads: list[bytes] = field(default_factory=list)
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(SWITCHED)
            while data := await reader.read(65_536):
                writer.write(data)
        self.ended += 1
        writer.close()


@contextlib.asynccontextmanager
async def an_upgraded_connection(
    context: RunContext, limits: Limits | None = None, door: str = RUN
) -> AsyncIterator[tuple[Guest, TlsStream, Echo]]:
    """Open one through a house; it has carried a frame each way."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0, ssl=CA.server_context(HOST))
    echo.pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with a_house(context, roots=CA.pem, resolve={HOST: echo.pin}, limits=limits) as guest:
            address = guest.listen(door, "proxy" if door else "token")
            client = await guest.tls_through(address, HOST, token="" if door else TOKEN)
            client.write(UPGRADE)
            while not client.buffer.endswith(b"\r\n\r\n"):
                assert await client.more()
            assert client.buffer == SWITCHED
            client.buffer.clear()
            client.write(PING)
            assert await client.more()
            assert client.buffer == PING
            yield guest, client, echo
    finally:
        server.close()


async def ended(guest: Guest, client: TlsStream, echo: Echo) -> ExchangeRecord:
    """Wait until both sides saw the end; return the record."""
    with contextlib.suppress(ConnectionError):
        assert not await client.more()
    await until(lambda: bool(guest.records) and echo.ended == 1)
    return guest.records[0]


@pytest.mark.parametrize("door", [RUN, ""], ids=["by door", "by token"])
@pytest.mark.parametrize(
    ("after", "why"),
    [
        (a_run(), "a grant that was spent on it is gone"),
        (a_run(rules=(SetHeader(Match(HOST), "Authorization", "s3cr3t", "another"),)), "a grant that was spent"),
        (a_run(rules=(RULE,), policy=NetworkPolicy("strict")), ""),
        (a_run(rules=(SetHeader(RULE.match, "Authorization", "Bearer s3cr3t-new", RULE.grant),)), ""),
    ],
    ids=["grant revoked", "grant exchanged", "still granted", "grant refreshed"],
)
async def test_a_tunnel_is_closed_when_its_grant_is_gone_and_only_then(after: RunContext, why: str, door: str) -> None:
    async with an_upgraded_connection(a_run(rules=(RULE,)), door=door) as (guest, client, echo):
        guest.house.put(a_run(OTHER_RUN), {})
        guest.house.put(after, {})
        if why:
            record = await ended(guest, client, echo)
            assert why in record.reason
            assert (record.status, record.outcome, record.grants) == (101, "forwarded", (RULE.grant,))
            assert (record.request_bytes, record.response_bytes) == (len(PING), len(PING))
        else:
            client.buffer.clear()
            client.write(PONG)
            assert await client.more()
            assert client.buffer == PONG


async def test_a_tunnel_is_closed_when_the_policy_denies_its_host() -> None:
    async with an_upgraded_connection(a_run()) as (guest, client, echo):
        guest.house.put(a_run(policy=NetworkPolicy("strict")), {})

        assert "policy" in (await ended(guest, client, echo)).reason


async def test_a_tunnel_in_which_nobody_says_anything_is_closed_and_counted() -> None:
    async with an_upgraded_connection(a_run(), Limits(upgrade_idle_s=1.0)) as (guest, client, echo):
        record = await ended(guest, client, echo)

    assert record.reason == "nothing was said for 1 s"
    assert (record.request_bytes, record.response_bytes) == (len(PING), len(PING))


async def test_the_bytes_of_a_tunnel_are_counted_also_when_its_run_ends() -> None:
    async with an_upgraded_connection(a_run()) as (guest, client, echo):
        guest.house.drop(RUN)
        record = await ended(guest, client, echo)

    assert (record.reason, record.request_bytes, record.response_bytes) == ("the run was stopped", len(PING), len(PING))


async def test_an_endpoint_carries_upgrades_until_it_is_taken_away() -> None:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    endpoint = Endpoint(ProxyPath("/_moat/kube/"), Forward(Upstream("kube.example", tls=False)))
    context = replace(a_run(policy=NetworkPolicy("strict")), endpoints=(endpoint,))
    async with a_house(context, resolve={"kube.example": pin}) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        upgrade = UPGRADE.replace(b"/socket", b"/_moat/kube/exec").replace(HOST.encode(), b"127.0.0.1:19080")
        assert (await guest.ask(client, upgrade, b"\r\n\r\n")) == SWITCHED
        assert (await guest.ask(client, PING, PING)) == PING
        guest.house.put(replace(context, endpoints=()), {})
        with contextlib.suppress(ConnectionError):
            assert not await client.more()
        await until(lambda: bool(guest.records) and echo.ended == 1)

    server.close()
    assert echo.heads[0].startswith(b"GET /exec HTTP/1.1\r\nHost: kube.example\r\n")
    assert (guest.records[0].reason, guest.records[0].via) == ("its endpoint is gone", "endpoint")


async def test_an_upgrade_where_the_policy_says_no_never_leaves() -> None:
    async with an_upgraded_connection(a_run(rules=(RULE,))) as (guest, _, echo):
        guest.house.put(a_run(OTHER_RUN, policy=NetworkPolicy("strict"), token="s3cr3t-other"), {})
        stranger = await guest.connect(guest.listen(OTHER_RUN, "proxy"))
        answer = await guest.ask(stranger, UPGRADE.replace(b"/socket", f"http://{HOST}/".encode()), b"--allow-host")

        assert answer.startswith(b"HTTP/1.1 403 ")
        assert len(echo.heads) == 1


async def test_a_client_whose_answer_was_ended_with_its_grant_asks_on_without_it(tmp_path: Path) -> None:
    async with proxied(tmp_path, RULE, authorization=None) as p:
        argv = ["curl", "-sSN", "--max-time", "30", "--cacert", str(p.worker.ca_file), "-x", p.proxy]
        process = await asyncio.create_subprocess_exec(*argv, f"https://{HOST}/sse", f"https://{HOST}/after", stdout=-1)
        assert process.stdout is not None
        await process.stdout.readline()
        await p.worker.put(a_run())
        await process.communicate()

        seen = [(each.path, each.header("Authorization")) for each in p.upstream.seen]
    assert seen == [("/sse", RULE.value), ("/after", None)]
