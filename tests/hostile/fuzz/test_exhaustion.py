"""Peers that want to use up what others need: time, memory, connections, names. Nobody else loses anything."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
from functools import partial

import pytest
from core.proxy.server.house_of import a_house
from core.proxy.test_hello import a_hello, in_records
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from moat.proxy.server import house, names, rooms
from support.strict import Message
from support.wire import Peer, turns
from support.worker import OTHER_RUN, RUN, TOKEN, a_run

from hostile.fuzz.stage import API, OTHER, PLAIN, UPSTREAM_CA, a_rule, a_stage
from hostile.fuzz.test_echoes import GET, OK, asked, saying

SHORT = Limits(idle_s=0.05, head_s=0.05, handshake_s=0.05, body_idle_s=0.05, linger_s=0.05, first_byte_s=0.05,
               answer_head_s=0.05, upgrade_idle_s=0.05)  # fmt: skip
HELLO = a_hello(API)
CONNECT = f"CONNECT {API}:443 HTTP/1.1\r\nHost: {API}\r\n\r\n".encode()
POST = f"POST http://{PLAIN}/ HTTP/1.1\r\nHost: {PLAIN}\r\n".encode()
WEBSOCKET = f"GET / HTTP/1.1\r\nHost: {OTHER}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def silent(name: str, message: Message) -> tuple[bytes, ...]:
    """An upstream that never answers."""
    del name, message
    return ()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET http",
        POST + b"Content-Length: 9\r\n\r\nhalf",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        CONNECT,
        CONNECT + HELLO[:40],
        CONNECT + b"\x16",
        POST + b"Content-Length: 4\r\n\r\nhalf",
        CONNECT.replace(b"443", b"80"),
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y",
    ],
    ids=[
        "nothing",
        "half a head",
        "half a body",
        "half a chunk",
        "a tunnel and nothing",
        "half a hello",
        "one byte of a hello",
        "a request that is never answered",
        "a plain tunnel and nothing",
        "half a trailer",
    ],
)
async def test_a_client_that_stops_anywhere_is_cut_off_and_the_next_one_served_meanwhile(said: bytes) -> None:
    async with a_stage(silent, limits=SHORT) as stage:
        slow = await stage.client()
        await slow.send(said)
        other = await stage.client()
        await other.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # answered by the proxy itself
        await stage.until(lambda: other.data.startswith(b"HTTP/1.1 404"))

        await stage.until(lambda: slow.has_ended)
        await stage.until(lambda: not stage.is_serving)


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n" * 50,
        b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    ],
    ids=["fields", "a field without end", "interim answers", "no head at all", "codings"],
)
async def test_a_flood_from_upstream_is_one_502_and_its_connection_is_over(flood: bytes) -> None:
    async with a_stage(saying(flood)) as stage:
        peer = await asked(stage)

        assert peer.data.count(b"HTTP/1.1 502 ") == 1
        await stage.until(lambda: all(one.has_ended for one in stage.seen))


async def test_frames_behind_the_beginning_of_a_credential_do_not_wait_in_any_number() -> None:
    rule = SetHeader(Match(OTHER), "Authorization", "Bearer s3cr3t-of-the-socket")
    flood = b"\x01\x03s3c" + b"\x89\x00" * 100_000
    async with a_stage(saying(SWITCHED + flood), rules=(rule,)) as stage:
        peer = await asked(stage, WEBSOCKET, OTHER)
        await stage.until(lambda: peer.has_ended)
        await stage.until(lambda: bool(stage.guest.records))
        (record,) = stage.guest.records

    assert peer.data.startswith(SWITCHED)
    assert b"s3c" not in peer.data
    assert "too many frames" in record.reason


@pytest.mark.parametrize("sizes", [(1,) * len(HELLO), (5, 1, 100)], ids=["bytes", "records"])
async def test_a_hello_in_pieces_is_answered_and_one_without_end_is_not(sizes: tuple[int, ...]) -> None:
    async with a_stage(OK) as stage:
        whole, endless = await stage.client(), await stage.client()
        for peer in (whole, endless):
            await peer.send(CONNECT)
            await stage.until(partial(peer.data.endswith, b"\r\n\r\n"))
            peer.data.clear()
        await whole.send(in_records(HELLO, *sizes[:64]), sizes)
        await stage.until(lambda: bool(whole.data))
        message = b"\x01\x00\xff\xff" + bytes(200_000)
        await endless.send(
            b"".join(b"\x16\x03\x01\x10\x00" + message[at : at + 4096] for at in range(0, 163_840, 4096))
        )
        await stage.until(lambda: endless.has_ended)

    assert whole.data.startswith(b"\x16\x03")
    assert not endless.data.startswith(b"\x16")


async def test_a_service_that_speaks_old_tls_only_gets_no_request() -> None:
    old = UPSTREAM_CA.server_context(API)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    came: list[Peer] = []

    async with a_stage(OK) as stage:
        address = stage.servers[1].sockets[0].getsockname()
        stage.servers[1].close()
        await turns()
        server = await asyncio.get_running_loop().create_server(lambda: _secured(came, old), *address)
        peer = await asked(stage)
        server.close()

    assert peer.data.startswith(b"HTTP/1.1 502")
    assert b"X-Moat-Error: tls" in peer.data
    assert [bytes(one.data) for one in came] == [b""]


def _secured(came: list[Peer], context: ssl.SSLContext) -> Peer:
    came.append(Peer())
    came[-1].secure(context, None)
    return came[-1]


async def test_a_run_that_takes_every_connection_takes_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MAX_CONNECTIONS", 8)
    runs = (a_run(probe_answer="alive"), a_run(OTHER_RUN, token="s3cr3t-other", probe_answer="alive"))
    async with a_house(*runs) as guest:
        greedy, other = guest.listen(RUN, "proxy"), guest.listen(OTHER_RUN, "proxy")
        for _ in range(40):
            await guest.connect(greedy)
        await turns(50)

        assert len(guest.house._rooms[RUN].connections) == 8
        answer = await guest.ask(await guest.connect(other), b"GET /_moat/probe HTTP/1.1\r\nHost: x\r\n\r\n", b"alive")
        assert answer.endswith(b"alive")


async def test_a_run_at_the_shared_listener_takes_only_its_own_connections_and_they_are_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "MAX_CONNECTIONS", 4)
    runs = (a_run(), a_run(OTHER_RUN, token="s3cr3t-other"))
    async with a_house(*runs) as guest:
        shared = guest.listen("", "token")
        greedy = [await guest.connect(shared) for _ in range(6)]
        answers = [await guest.ask(each, _connect(TOKEN), b"\r\n\r\n") for each in greedy]

        assert [answer.split()[1] for answer in answers] == [b"200"] * 4 + [b"503"] * 2
        assert guest.records[-1].run_id == RUN
        assert b" 200 " in await guest.ask(await guest.connect(shared), _connect("s3cr3t-other"), b"\r\n\r\n")
        greedy[0].abort()
        await turns(50)
        assert b" 200 " in await guest.ask(await guest.connect(shared), _connect(TOKEN), b"\r\n\r\n")


async def test_who_holds_connections_without_a_token_loses_them_and_runs_that_have_one_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "MAX_UNIDENTIFIED", 4)
    async with a_house(a_run(), limits=Limits(unidentified_s=0.2, hurried_s=0.05)) as guest:
        shared = guest.listen("", "token")
        tunnel = await guest.connect(shared)
        assert b" 200 " in await guest.ask(tunnel, _connect(TOKEN), b"\r\n\r\n")
        silent = [await guest.connect(shared) for _ in range(12)]

        assert b" 200 " in await guest.ask(await guest.connect(shared), _connect(TOKEN), b"\r\n\r\n")
        for each in silent:
            assert not await each.more()
        assert not tunnel.is_over


async def test_wrong_tokens_win_no_time() -> None:
    async with a_house(a_run(), limits=Limits(unidentified_s=0.1)) as guest:
        guesser = await guest.connect(guest.listen("", "token"))
        async with asyncio.timeout(30):
            while not guesser.is_over:
                await guest.ask(guesser, _connect("s3cr3t-guess"), b"\r\n\r\n")


def _connect(token: str) -> bytes:
    basic = base64.b64encode(f"x:{token}".encode()).decode()
    return f"{CONNECT.decode()[:-2]}Proxy-Authorization: Basic {basic}\r\n\r\n".encode()


async def test_very_many_names_cost_a_bounded_room_and_a_bounded_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_NAMES", 16)
    async with a_house(a_run(policy=NetworkPolicy("strict", ("*.example.com",)))) as guest:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        guest.house.listen(RUN, "dns-udp", sock)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setblocking(False)
        came = 0
        for number in range(600):
            client.sendto(_query(f"x{number}.{'example.com' if number % 2 else 'evil.test'}"), address)
            await turns(3)
            came += len(client.recv(512)) > 12
        client.close()

        assert came == 600
        assert len(guest.house._rooms[RUN].names._hosts) == 16
        assert len(guest.records) == house.MAX_KEPT_IN
        assert {record.host.partition(".")[2] for record in guest.records} == {"evil.test"}


def _query(host: str) -> bytes:
    labels = b"".join(len(label).to_bytes() + label.encode() for label in host.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


@pytest.mark.parametrize("end", ["its grant is gone", "the policy denies its host", "the run is over"])
async def test_what_was_decided_for_a_tunnel_ends_when_its_reason_does(end: str) -> None:
    async with a_stage(OK) as stage:
        peer = await asked(stage)
        replaced = a_run(policy=NetworkPolicy("strict", (API,)))
        if end == "the run is over":
            stage.guest.house.drop(RUN)
        else:
            stage.guest.house.put(replaced if "grant" in end else a_run(policy=NetworkPolicy("strict", ())), {})
        before = len(peer.data)
        await peer.send(GET)
        await stage.quiet()
        left = [bytes(one.data).count(b"Authorization") for one in stage.seen]

    assert sum(left) == 1
    after = bytes(peer.data[before:])
    assert after[:12] == (b"HTTP/1.1 200" if "grant" in end else b"" if "run" in end else b"HTTP/1.1 403")


async def test_an_upgraded_tunnel_ends_with_its_leave_and_exists_by_the_services_word_only() -> None:
    async with a_stage(saying(SWITCHED)) as stage:
        peer = await asked(stage, WEBSOCKET, OTHER)
        await peer.send(b"ping")
        await stage.quiet()
        echoed = bytes(peer.data).endswith(b"ping")
        stage.guest.house.put(a_run(policy=NetworkPolicy("strict", (PLAIN,))), {})
        await stage.until(lambda: peer.has_ended)
        record = stage.guest.records[-1]
    async with a_stage(OK) as stage:
        refused = await asked(stage, WEBSOCKET + b"not a request\r\n\r\n", OTHER)
        left = b"".join(bytes(one.data) for one in stage.seen)

    assert (echoed, record.request_bytes, record.response_bytes) == (True, 4, 4)
    assert refused.data.startswith(b"HTTP/1.1 200 OK")
    assert b"not a request" not in left


async def test_no_connection_to_a_service_is_shared_between_runs_hosts_or_grants() -> None:
    async with a_stage(OK) as stage:
        second = a_run(OTHER_RUN, token="s3cr3t-other", rules=(a_rule(),), policy=NetworkPolicy("strict", (OTHER,)))
        stage.guest.house.put(second, {})
        doors = (stage.door, stage.guest.listen(OTHER_RUN, "proxy"))
        for door in (*doors, *doors):
            stage.door = door
            for host in (API, OTHER):
                await asked(stage, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), host)
        kept = [(one.name, bytes(one.data).count(b"GET / ")) for one in stage.seen]

    assert sorted(kept) == [(API, 2), (API, 2), (OTHER, 2), (OTHER, 2)]
    rule = SetHeader(Match(API, paths=("/with/**",)), "Authorization", "Bearer s3cr3t-of-a-path", "example")
    async with a_stage(OK, rules=(rule,)) as stage:
        for path in ("/with/a", "/without", "/with/b"):
            await asked(stage, f"GET {path} HTTP/1.1\r\nHost: {API}\r\n\r\n".encode())
        kept = [(one.name, bytes(one.data).count(b"GET /with/")) for one in stage.seen]

    assert sorted(kept) == [(API, 0), (API, 2)]
