"""The worker's other ways in: transparent doors, the resolver, upgrades, hostile bytes; and its ways out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import struct
from pathlib import Path

import aiohttp
import pytest
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy
from moat.proxy.messages import Drop, Stop
from support.proxied import HOST, RULE, SECRET, Proxied, proxied, run
from support.worker import RUN, a_run

STRICT = NetworkPolicy("strict")


async def test_a_client_that_ignores_proxies_gets_its_credential_by_address(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        address = await _name(p, HOST)
        _, port = await p.worker.listen(RUN, "tls", host="0.0.0.0")
        to = f"{HOST}:443:{address}:{port}"
        done = await run("curl", "-sS", "--cacert", str(p.worker.ca_file), "--connect-to", to, f"https://{HOST}/")
        (record,) = await p.worker.records(1)

        assert b'"ok": true' in done.stdout, done.stderr
        assert p.upstream.seen[0].header("Authorization") == SECRET
    assert (record.via, record.host, record.port, record.grants) == ("transparent", HOST, 443, ("example",))
    assert [(named.name, named.address) for named in p.worker.named] == [(HOST, address)]


async def test_plain_http_by_address_goes_to_its_name_without_credential(tmp_path: Path) -> None:
    async with proxied(tmp_path, authorization=None) as p:
        address = await _name(p, "plain.example.com")
        _, port = await p.worker.listen(RUN, "http", host="0.0.0.0")
        to = f"plain.example.com:80:{address}:{port}"
        done = await run("curl", "-sS", "--connect-to", to, "http://plain.example.com/")
        other = await run("curl", "-sS", "--connect-to", to, "-H", f"Host: {HOST}", "http://plain.example.com/")
        nowhere = await run("curl", "-sS", f"http://127.107.9.9:{port}/")

    assert b'"ok": true' in done.stdout
    assert b"which this connection is for" in other.stdout
    assert b"stands for no name" in nowhere.stdout


async def test_a_hello_for_another_name_than_the_address_is_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        address = await _name(p, HOST)
        _, port = await p.worker.listen(RUN, "tls", host="0.0.0.0")
        to = f"other.example.com:443:{address}:{port}"
        done = await run("curl", "-sSk", "--connect-to", to, "https://other.example.com/")
        (record,) = await p.worker.records(1)

        assert p.upstream.seen == []
    assert done.returncode == 35
    assert "SNI names another host" in record.reason


@pytest.mark.parametrize("over_tcp", [False, True], ids=["udp", "tcp"])
async def test_the_resolver_names_what_the_policy_lets_out_and_nothing_else(over_tcp: bool, tmp_path: Path) -> None:
    async with proxied(tmp_path, policy=STRICT) as p:
        door = await p.worker.listen(RUN, "dns-tcp" if over_tcp else "dns-udp")
        ask = _ask_tcp if over_tcp else _ask_udp
        allowed = await asyncio.to_thread(ask, door, HOST, 1)
        v6 = await asyncio.to_thread(ask, door, HOST, 28)
        refused = await asyncio.to_thread(ask, door, "stolen-data.attacker.example", 1)

    assert allowed[3] & 0x0F == 0
    assert allowed[-4:-2] == bytes((127, 107))
    assert (v6[3] & 0x0F, v6[6:8]) == (0, b"\0\0")
    assert refused[3] & 0x0F == 3


async def test_a_websocket_passes_both_ways_after_a_real_101(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        trust = ssl.create_default_context(cafile=str(p.worker.ca_file))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"https://{HOST}/ws", proxy=p.proxy, ssl=trust) as websocket,
        ):
            await websocket.send_str("hello")
            answer = await websocket.receive_str()
        (record,) = await p.worker.records(1)

    assert answer == "echo hello"
    assert (record.status, record.outcome, record.path) == (101, "forwarded", "/ws")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n", 421),
        (b"GET https://other.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 421),
        (b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: api.example.com\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: +4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n", 400),
        (b"GET / HTTP/1.1\nHost: api.example.com\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX-A: b\r\n folded\r\n\r\n", 400),
    ],
    ids=["other host", "other absolute form", "nested connect", "trace", "two hosts", "both lengths", "signed length",
         "chunk extension", "bare line feeds", "folded field"],
)  # fmt: skip
async def test_hostile_requests_in_a_tunnel_never_reach_the_upstream(
    request_bytes: bytes, status: int, tmp_path: Path
) -> None:
    async with proxied(tmp_path) as p:
        answer = await _in_tunnel(p, request_bytes)
        (record,) = await p.worker.records(1)

        assert p.upstream.seen == []
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert record.status == status


async def test_each_pipelined_request_is_judged_alone(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        first = b"GET /one HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
        second = b"GET /two HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"
        answer = await _in_tunnel(p, first + second)
        records = await p.worker.records(2)

        assert [seen.path for seen in p.upstream.seen] == ["/one"]
    assert b"HTTP/1.1 421 " in answer
    assert [record.status for record in records] == [200, 421]


async def test_a_hello_that_names_another_host_than_connect_ends_the_tunnel(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        with pytest.raises(ssl.SSLError):
            await _in_tunnel(p, b"", server_name="other.example.com")
        (record,) = await p.worker.records(1)

    assert "SNI names another host" in record.reason


async def test_an_upstream_with_an_untrusted_certificate_gets_no_credential(tmp_path: Path) -> None:
    rule = SetHeader(Match("127.0.0.9"), "Authorization", SECRET, "example")
    async with proxied(tmp_path, rule) as p:
        done = await p.curl("https://127.0.0.9/", "-i")
        (record,) = await p.worker.records(1)

        assert p.upstream.seen == []
    assert b"X-Moat-Error: certificate" in done.stdout
    assert (record.status, record.outcome) == (502, "failed")


async def test_before_the_run_is_open_only_the_probe_is_answered(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        await p.worker.put(a_run(rules=(RULE,), is_open=False, probe_answer="nonce-of-the-door"))
        probe = await run("curl", "-sS", f"{p.proxy}/_moat/probe")
        other = await p.curl(f"https://{HOST}/", "-i")

        assert p.upstream.seen == []
    assert probe.stdout == b"nonce-of-the-door"
    assert b"503 Service Unavailable" in other.stdout


async def test_dropping_a_run_closes_its_connections_and_frees_its_door(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        reader, writer = await _tunnel(p)
        p.worker.send(Drop(RUN))
        await p.worker.settle()
        rest = await reader.read()
        writer.close()
        held = p.worker.held[RUN, "proxy"]
        with socket.create_connection(held.getsockname()) as late:  # the gate's copy still takes it into the backlog
            late.setblocking(False)
            with pytest.raises(BlockingIOError):
                late.recv(1)

    assert rest == b""


async def test_a_successor_serves_the_same_socket_after_the_worker_was_killed(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        os.kill(p.worker.process.pid, signal.SIGKILL)
        await asyncio.to_thread(p.worker.process.wait)
        door = p.worker.held[RUN, "proxy"]
        with socket.create_connection(door.getsockname()) as waiting:
            (tmp_path / "next").mkdir()
            async with proxied(tmp_path / "next") as successor:
                await successor.worker.adopt(RUN, "proxy", door)
                waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = await asyncio.to_thread(waiting.recv, 100)

    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_stop_ends_the_worker_with_exit_code_0(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        p.worker.send(Stop())

        assert await asyncio.to_thread(p.worker.process.wait, 30) == 0


async def test_the_worker_is_confined(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        status = await asyncio.to_thread(Path(f"/proc/{p.worker.process.pid}/status").read_text)

    assert "NoNewPrivs:\t1" in status


async def _name(p: Proxied, host: str) -> str:
    door = await p.worker.listen(RUN, "dns-udp")
    reply = await asyncio.to_thread(_ask_udp, door, host, 1)
    return socket.inet_ntoa(reply[-4:])


def _query(host: str, kind: int) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in host.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def _ask_udp(door: tuple[str, int], host: str, kind: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.sendto(_query(host, kind), door)
        return sock.recv(512)


def _ask_tcp(door: tuple[str, int], host: str, kind: int) -> bytes:
    with socket.create_connection(door, 30) as sock, sock.makefile("rwb") as file:
        query = _query(host, kind)
        file.write(struct.pack("!H", len(query)) + query)
        file.flush()
        return file.read(int.from_bytes(file.read(2), "big"))


async def _tunnel(p: Proxied) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = p.proxy.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _in_tunnel(p: Proxied, request: bytes, server_name: str = HOST) -> bytes:
    reader, writer = await _tunnel(p)
    try:
        trust = ssl.create_default_context(cafile=str(p.worker.ca_file))
        await writer.start_tls(trust, server_hostname=server_name)
        writer.write(request)
        answer = b""
        while b"moat: " not in answer and (piece := await reader.read(65_536)):
            answer += piece
        return answer
    finally:
        writer.close()
