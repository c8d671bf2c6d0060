"""HTTP/2 through a real worker: real gRPC both ends, curl, nghttp, and frames that no honest client sends."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from moat.api.runs import NetworkPolicy
from moat.proxy.scrub import mask
from support.grpc_service import GrpcService, grpc_call, grpc_service
from support.proxied import HOST, RULE, SECRET, Proxied, proxied, run
from support.upstream import make_test_ca
from support.worker import RUN, RunningWorker, a_run, running_worker

NGHTTP = pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp2-client is not installed")
TOKEN = SECRET.removeprefix("Bearer ")
OVER_H2 = "/demo.Service/"


@contextlib.asynccontextmanager
async def grpc(
    folder: Path, policy: NetworkPolicy | None = None
) -> AsyncIterator[tuple[RunningWorker, GrpcService, str]]:
    """Run a gRPC service that wants the credential and a worker; yield them and the proxy's URL."""
    ca = make_test_ca()
    async with grpc_service(folder, ca, SECRET, HOST) as service:
        pins = {HOST: f"127.0.0.1:{service.port}"}
        async with running_worker(folder, ca.pem, pins) as worker:
            await worker.put(a_run(rules=(RULE,), policy=policy))
            host, port = await worker.listen(RUN, "proxy")
            yield worker, service, f"http://{host}:{port}"


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("Hello", "world"), {"answer": "hello world", "trailers": {"x-trail": "the end"}, "code": "OK"}),
        (("Count", "2000"), {"count": 2000, "last": "1999", "trailers": {"x-trail": "counted"}}),
        (("Echo", "30", "200000"), {"count": 30, "same": True}),
        (("Fail", "x"), {"code": "ALREADY_EXISTS", "details": "there is one: x"}),
    ],
    ids=["unary", "server streaming", "both ways, 6 MB", "a status of its own"],
)
async def test_grpc_calls_work_and_spend_the_credential(
    words: tuple[str, ...], result: dict[str, Any], tmp_path: Path
) -> None:
    async with grpc(tmp_path) as (worker, service, proxy):
        found = await grpc_call(proxy, worker.ca_file, f"{HOST}:443", *words)
        (record,) = await worker.records(1)

    assert found == result
    assert service.seen == [(words[0], SECRET)]
    assert (record.method, record.path, record.status) == ("POST", OVER_H2 + words[0], 200)
    assert (record.outcome, record.grants) == ("forwarded", ("example",))


async def test_a_word_of_a_grpc_conversation_that_ends_like_a_credential_begins_does_not_wait_for_the_next(
    tmp_path: Path,
) -> None:
    words = ("this", "these are s3cr3t", f"not {TOKEN[:-1]}", TOKEN, "s")
    async with grpc(tmp_path) as (worker, _, proxy):
        found = await grpc_call(proxy, worker.ca_file, f"{HOST}:443", "Converse", *words)

    assert found == {"answers": [word if word != TOKEN else mask(len(TOKEN)).decode() for word in words]}


@pytest.mark.parametrize("more", [(), ("packed",)], ids=["who is asked plainly", "who is asked in gzip"])
async def test_a_credential_that_a_grpc_service_repeats_in_gzip_is_removed(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    async with grpc(tmp_path) as (worker, _, proxy):
        found = await grpc_call(proxy, worker.ca_file, f"{HOST}:443", "Repeat", "x" * 400, *more)
        (record,) = await worker.records(1)

    assert found == {"answer": "x" * 400 + f"Bearer {mask(len(TOKEN)).decode()}" * 3}
    assert record.scrubbed == 3


async def test_a_grpc_call_that_is_cancelled_is_cancelled_upstream(tmp_path: Path) -> None:
    async with grpc(tmp_path) as (worker, service, proxy):
        found = await grpc_call(proxy, worker.ca_file, f"{HOST}:443", "Wait")
        async with asyncio.timeout(30):
            await service.cancelled.wait()
        (record,) = await worker.records(1)

    assert found == {"first": "waiting", "code": "CANCELLED"}
    assert record.reason == "the client went away"


async def test_a_grpc_call_that_the_policy_denies_says_what_to_add(tmp_path: Path) -> None:
    async with grpc(tmp_path) as (worker, service, proxy):
        await worker.put(a_run(policy=NetworkPolicy("strict", (f"{HOST}:80",))))
        refused = await grpc_call(proxy, worker.ca_file, f"{HOST}:443", "Hello", "x")
        (record,) = await worker.records(1)

    assert refused["code"] == "UNAVAILABLE"  # the tunnel itself is refused, which grpcio tells so
    assert service.seen == []
    assert (record.method, record.outcome) == ("CONNECT", "denied")


async def test_a_client_that_offers_both_versions_gets_http_1(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        done = await p.curl(f"https://{HOST}/", "--http2", "-w", "%{http_version}")

    assert done.stdout.endswith(b"1.1")


async def test_http_2_in_clear_text_is_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        done = await p.curl("http://plain.example.com/", "--http2-prior-knowledge", "-p")
        upgraded = await p.curl("http://plain.example.com/", "--http2", "-H", f"Authorization: {SECRET}", "-i")

    assert done.returncode != 0
    assert b"HTTP/1.1 200" in upgraded.stdout
    assert b"101" not in upgraded.stdout.split(b"\r\n")[0]


async def transparent(p: Proxied) -> str:
    """Open a TLS door at the address that HOST was given; return it as host:port."""
    await p.worker.put(a_run("run_00000000000c", rules=(RULE,), token="s3cr3t-other"), {HOST: "127.107.0.9"})
    host, port = await p.worker.listen("run_00000000000c", "tls", host="127.107.0.9")
    return f"{host}:{port}"


@NGHTTP
async def test_nghttp_downloads_and_uploads_through_an_upstream_of_http_1(tmp_path: Path) -> None:
    big = tmp_path / "big"
    await asyncio.to_thread(big.write_bytes, b"y" * 20_000_000)
    async with proxied(tmp_path) as p:
        door = await transparent(p)
        head = ("-H", f":authority: {HOST}")
        down = await run("nghttp", *head, f"https://{door}/big?n=50000000")
        up = await run("nghttp", *head, "-H", ":method: POST", "-d", str(big), f"https://{door}/bytes")
        status = await asyncio.to_thread(Path(f"/proc/{p.worker.process.pid}/status").read_text)
        records = await p.worker.records(2)

    assert len(down.stdout) == 50_000_000
    assert up.stdout == b'{"bytes": 20000000}'
    assert int(status.partition("VmHWM:")[2].split()[0]) < 150_000
    assert [record.via for record in records] == ["transparent", "transparent"]


@NGHTTP
async def test_many_streams_on_many_connections_are_all_answered(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        door = await transparent(p)
        load = ("h2load", "--npn-list=h2", "-n", "400", "-c", "4", "-m", "50", "-H", f":authority: {HOST}")
        done = await run(*load, f"https://{door}/")
        records = await p.worker.records(400)

    assert b"400 succeeded, 0 failed" in done.stdout
    assert {record.status for record in records} == {200}


class Hostile:
    """A client whose frames are its own. Blocking: run it in a thread."""

    def __init__(self, p: Proxied) -> None:
        host, _, port = p.proxy.removeprefix("http://").rpartition(":")
        plain = socket.create_connection((host, int(port)), 30)
        plain.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        while b"\r\n\r\n" not in plain.recv(4096):
            pass
        context = ssl.create_default_context(cafile=str(p.worker.ca_file))
        context.set_alpn_protocols(["h2"])
        self.sock = context.wrap_socket(plain, server_hostname=HOST)
        assert self.sock.selected_alpn_protocol() == "h2"
        config = H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = H2Connection(config)
        self.h2.initiate_connection()

    def ask(self, *extra: tuple[str, str], authority: str = HOST, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")]
        self.h2.send_headers(stream, [*head, *extra], end_stream=end)
        return stream

    def answer(self, raw: bytes = b"") -> tuple[set[int], set[int], int | None]:
        """Send what there is and read until nothing is open; return streams that ended, were reset, and a GOAWAY."""
        ended: set[int] = set()
        reset: set[int] = set()
        goaway = None
        with contextlib.suppress(OSError, ProtocolError):
            self.sock.sendall(self.h2.data_to_send() + raw)
            opened = self.h2.highest_outbound_stream_id
            while not {*ended, *reset} >= set(range(1, opened + 1, 2)) or raw:
                data = self.sock.recv(65_536)
                for event in self.h2.receive_data(data) if data else ():
                    match event:
                        case DataReceived():
                            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        case StreamEnded():
                            ended.add(event.stream_id)
                        case StreamReset():
                            reset.add(event.stream_id)
                        case ConnectionTerminated():
                            goaway = int(event.error_code or 0)
                if not data:
                    break
                self.sock.sendall(self.h2.data_to_send())
        self.sock.close()
        return ended, reset, goaway


async def attacked(p: Proxied, *asks: dict[str, Any], raw: bytes = b"") -> tuple[set[int], set[int], int | None]:
    def attack() -> tuple[set[int], set[int], int | None]:
        client = Hostile(p)
        for each in asks:
            client.ask(*each.get("extra", ()), authority=each.get("authority", HOST), end=each.get("end", True))
        return client.answer(raw)

    return await asyncio.to_thread(attack)


@pytest.mark.parametrize(
    "extra",
    [("a\r\nx-smuggled", "1"), ("a", "1\r\nx-smuggled: 1"), ("a: 1\r\nb", "c"), ("transfer-encoding", "chunked"),
     ("content-length", "9"), ("host", "other.example.com"), ("connection", "x"), ("Upper", "x"), ("", "x"),
     ("x_under", "x"), (":late", "x")],
    ids=repr,
)  # fmt: skip
async def test_nothing_is_smuggled_into_an_upstream_of_http_1(extra: tuple[str, str], tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        ended, reset, goaway = await attacked(p, {"extra": (extra,)}, {})
        await p.worker.records(2)

    assert (ended, reset, goaway) == ({3}, {1}, None)
    assert [seen.path for seen in p.upstream.seen] == ["/"]
    assert "smuggled" not in repr(p.upstream.seen).lower()


async def test_another_authority_than_the_tunnels_is_misdirected(tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        ended, _, _ = await attacked(p, {"authority": "other.example.com"})
        (record,) = await p.worker.records(1)

    assert ended == {1}
    assert (record.status, record.outcome) == (421, "refused")
    assert p.upstream.seen == []


FLOODS = {
    "settings": b"\0\0\0\x04\0\0\0\0\0" * 5_000,
    "pings": (b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)) * 5_000,
    "continuations": b"\0\0\x01\x01\0\0\0\0\x01\x82" + b"\0\0\x01\x09\0\0\0\0\x01\x82" * 5_000,
    "unknown frames": b"\0\0\0\x77\0\0\0\0\0" * 5_000,
    "a frame of 16 MiB": b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(5_000),
    "nonsense": b"\xff" * 5_000,
}


@pytest.mark.parametrize("raw", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_ends_its_connection_and_nothing_else(raw: bytes, tmp_path: Path) -> None:
    async with proxied(tmp_path) as p:
        await attacked(p, raw=raw)
        (record, *_) = await p.worker.records(1)
        after = await p.curl(f"https://{HOST}/")

    assert (record.status, record.outcome) == (400, "refused")
    assert b'"ok": true' in after.stdout
