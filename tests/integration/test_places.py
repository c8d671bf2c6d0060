"""Endpoints at names, ports and sockets of the run's own: a real worker, real clients, every way in and every kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector, UnixConnector, WSMsgType
from moat.api.endpoints import Endpoint, Forward, Reply, Respond, Stream, Tcp, UnixPath, Upstream
from moat.api.rules import Match, SetHeader
from moat.api.runs import NetworkPolicy, RunContext
from moat.net.rules import parse_rule
from moat.proxy.messages import Listen
from support.grpc_service import grpc_call, grpc_service
from support.proxied import run
from support.tls_server import TlsServer, tls_server
from support.upstream import make_test_ca, running_upstream
from support.worker import RUN, TOKEN, RunningWorker, a_run, running_worker

HOST = "real.corp.example"
CA = make_test_ca()
SECRET = "Bearer s3cr3t-of-the-place"
RULE = SetHeader(Match(f"{HOST}:6443"), "Authorization", SECRET, "cluster")
REAL = Upstream(f"{HOST}:6443", ca=CA.pem)
API = Endpoint(Tcp("api.internal"), Forward(REAL, (RULE,)), "cluster")
CLEAR = Endpoint(Tcp("clear.internal", 80, tls=False), Forward(REAL, (RULE,)), "cluster")
SOCKET = Endpoint(UnixPath("/run/cluster/api.sock"), Forward(REAL, (RULE,)), "cluster")
BYTES = Endpoint(Tcp("bytes.internal", 5432, tls=False), Stream(REAL, b"PRELUDE s3cr3t\r\n"), "cluster")
WORDS = Endpoint(Tcp("words.internal", 8080, tls=False), Respond("w", Reply(203, (("X-A", "b"),), b"hello")), "cluster")


def having(*endpoints: Endpoint, policy: NetworkPolicy | None = None) -> RunContext:
    return replace(a_run(policy=policy), endpoints=endpoints)


@dataclass
class Place:
    """A worker with a run, and a real service. proxy: the run's proxy door."""

    worker: RunningWorker
    server: TlsServer
    proxy: str
    folder: Path
    held: list[socket.socket] = field(default_factory=list)

    async def curl(self, url: str, *arguments: str) -> str:
        """Return the body and the status, or curl's exit code."""
        common = ["curl", "-sS", "--max-time", "30", "--cacert", str(self.worker.ca_file), "-w", " %{http_code}"]
        done = await run(*common, *arguments, url)
        return done.stdout.decode() if done.returncode == 0 else f"exit {done.returncode}"

    async def unix(self, path: str) -> str:
        """Hand a unix socket over that stands for path inside; return where it is here."""
        here = self.folder / "e.sock"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(here))
        sock.listen()
        self.held.append(sock)
        self.worker.send(Listen(RUN, f"unix:{path}"), sock.fileno())
        await self.worker.settle()
        return str(here)


@contextlib.asynccontextmanager
async def a_place(folder: Path, context: RunContext, *, tls: bool = True) -> AsyncIterator[Place]:
    with tls_server(CA.server_context(HOST) if tls else None) as server:
        async with running_worker(folder, resolve={HOST: server.pin}) as worker:
            await worker.put(context, {each.where.name: f"127.107.0.{number + 9}"
                                       for number, each in enumerate(context.endpoints)
                                       if isinstance(each.where, Tcp)})  # fmt: skip
            host, port = await worker.listen(RUN, "proxy")
            place = Place(worker, server, f"http://{host}:{port}", folder)
            try:
                yield place
            finally:
                for sock in place.held:
                    sock.close()


async def test_a_name_leads_through_the_proxy_to_its_service_with_the_credential(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(API, policy=NetworkPolicy("strict"))) as place:
        answer = await place.curl("https://api.internal/v1?x", "-x", place.proxy)
        (record, *_) = await place.worker.records(1)

    assert answer == "ok 200"
    head = place.server.data.decode()
    assert head.startswith(f"GET /v1?x HTTP/1.1\r\nHost: {HOST}:6443\r\n")
    assert f"Authorization: {SECRET}\r\n" in head
    assert "api.internal" not in head
    assert (record.via, record.host, record.path, record.grants) == ("endpoint", HOST, "/v1", ("cluster",))


async def test_a_name_in_clear_is_reached_as_such(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(CLEAR)) as place:
        absolute = await place.curl("http://clear.internal/v1", "-x", place.proxy)
        tunnel = await place.curl("http://clear.internal/v2", "-x", place.proxy, "-p")

    assert (absolute, tunnel) == ("ok 200", "ok 200")
    assert place.server.data.count(SECRET.encode()) == 2


async def test_a_name_is_looked_up_and_connected_to_without_a_proxy(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(API, WORDS, policy=NetworkPolicy("strict"))) as place:
        tls_host, tls_port = await place.worker.listen(RUN, "tls", host="127.107.0.9")
        await place.worker.listen(RUN, "tcp:8080", host="127.107.0.10")
        port = place.worker.held[RUN, "tcp:8080"].getsockname()[1]
        forward = await place.curl("https://api.internal/", "--connect-to", f"::{tls_host}:{tls_port}")
        words = await place.curl("http://words.internal:8080/", "--connect-to", f"::127.107.0.10:{port}")

    assert (forward, words) == ("ok 200", "hello 203")


async def test_a_port_is_nothing_where_no_endpoint_is(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(API)) as place:
        host, port = await place.worker.listen(RUN, "tcp:9999", host="127.107.0.9")
        answer = await place.curl("http://api.internal:9999/", "--connect-to", f"::{host}:{port}")
        (record,) = await place.worker.records(1)

    assert answer in ("exit 52", "exit 56")  # closed without a word: whose protocol it is, nobody knows
    assert (record.status, record.reason) == (421, "127.107.0.9 port 9999 leads to no endpoint")


async def test_a_socket_inside_leads_to_the_service(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(SOCKET)) as place:
        here = await place.unix("/run/cluster/api.sock")
        answers = [await place.curl("http://localhost/v1", "--unix-socket", here) for _ in range(2)]
        await place.worker.put(having())
        gone = await place.curl("http://localhost/v1", "--unix-socket", here)

    assert answers == ["ok 200", "ok 200"]
    assert gone.endswith(" 404")
    assert place.server.data.count(SECRET.encode()) == 2


async def test_bytes_are_relayed_after_the_prelude(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(BYTES, policy=NetworkPolicy("strict"))) as place:
        host, port = await place.worker.listen(RUN, "tcp:5432", host="127.107.0.9")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"anything\0 at all\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\nok")
        writer.close()
        (record,) = await place.worker.records(1)

    assert answer.startswith(b"HTTP/1.1 200 OK")  # what this service says to anything
    assert place.server.data == b"PRELUDE s3cr3t\r\nanything\0 at all\r\n\r\n"
    assert (record.via, record.method, record.host, record.port) == ("endpoint", "STREAM", HOST, 6443)
    assert (record.request_bytes, record.response_bytes, record.grants) == (20, len(answer), ("cluster",))


@pytest.mark.parametrize(
    ("context", "word"),
    [
        (having(BYTES, policy=NetworkPolicy(rules=(parse_rule(f"deny * {HOST}:6443/**"),))), "denied by the rule"),
        (having(replace(BYTES, how=Stream(Upstream(f"{HOST}:6443")))), "not trusted"),
    ],
    ids=["denied", "untrusted"],
)
async def test_a_stream_that_may_not_or_cannot_be_is_closed_and_recorded(
    context: RunContext, word: str, tmp_path: Path
) -> None:
    async with a_place(tmp_path, context) as place:
        host, port = await place.worker.listen(RUN, "tcp:5432", host="127.107.0.9")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"s3cr3t\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        (record,) = await place.worker.records(1)

    assert word in record.reason
    assert place.server.data == b""


async def test_a_stream_is_ended_when_its_endpoint_or_its_leave_is_gone(tmp_path: Path) -> None:
    denied = NetworkPolicy(rules=(parse_rule(f"deny * {HOST}:6443/**"),))
    for changed, reason in ((having(), "endpoint is gone"), (having(BYTES, policy=denied), "policy")):
        folder = tmp_path / reason.split()[0]
        folder.mkdir()
        async with a_place(folder, having(BYTES)) as place:
            host, port = await place.worker.listen(RUN, "tcp:5432", host="127.107.0.9")
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"x\r\n\r\n")
            await reader.readuntil(b"ok")
            await place.worker.put(having(BYTES, API))
            writer.write(b"x\r\n\r\n")
            await reader.readuntil(b"ok")
            await place.worker.put(changed)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            (record,) = await place.worker.records(1)
        assert reason in record.reason


async def test_a_stream_inside_tls_agrees_on_what_its_service_speaks(tmp_path: Path) -> None:
    stream = Endpoint(Tcp("tls.internal", 5433), Stream(replace(REAL, alpn=("http/1.1",))), "cluster")
    async with a_place(tmp_path, having(stream)) as place:
        host, port = await place.worker.listen(RUN, "tcp:5433", host="127.107.0.9")
        context = ssl.create_default_context(cafile=str(place.worker.ca_file))
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="tls.internal")
        writer.write(b"hello\r\n\r\n")
        answer = await reader.readuntil(b"ok")
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()

    assert (agreed, answer[:15]) == ("http/1.1", b"HTTP/1.1 200 OK")
    assert place.server.data == b"hello\r\n\r\n"


async def test_a_fixed_answer_is_given_to_every_method_and_nothing_leaves(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(WORDS, policy=NetworkPolicy("strict"))) as place:
        url = "http://words.internal:8080/any?q=s3cr3t"
        answers = [await place.curl(url, "-x", place.proxy, *more) for more in ((), ("-d", "body"), ("-I",))]
        records = await place.worker.records(3)

    assert answers[:2] == ["hello 203", "hello 203"]
    assert "X-A: b\r\nContent-Length: 5\r\n" in answers[2]
    assert [(record.method, record.status, record.host, record.path) for record in records] == [
        (method, 203, "words.internal", "/any") for method in ("GET", "POST", "HEAD")
    ]
    assert [record.request_bytes for record in records] == [0, 4, 0]
    assert place.server.handshakes == []


async def test_tokens_reach_places_where_there_is_no_door(tmp_path: Path) -> None:
    async with a_place(tmp_path, having(API)) as place:
        host, port = await place.worker.listen("", "token")
        answer = await place.curl("https://api.internal/", "-x", f"http://moat:{TOKEN}@{host}:{port}")
        without = await place.curl("https://api.internal/", "-x", f"http://{host}:{port}")

    assert (answer, without) == ("ok 200", "exit 56")


@pytest.mark.parametrize("is_unix", [False, True], ids=["at a name", "at a socket"])
async def test_a_websocket_passes_and_ends_with_its_endpoint(is_unix: bool, tmp_path: Path) -> None:
    where = UnixPath("/run/ws/ws.sock") if is_unix else Tcp("ws.internal", 80, tls=False)
    with running_upstream(hosts=(HOST,)) as upstream:
        endpoint = Endpoint(where, Forward(Upstream(HOST, ca=upstream.ca_pem)))
        async with running_worker(tmp_path, resolve=upstream.pins(HOST)) as worker:
            await worker.put(having(endpoint), {"ws.internal": "127.107.0.9"})
            place = Place(worker, None, "", tmp_path)  # type: ignore[arg-type] # not asked
            host, port = await worker.listen(RUN, "http", host="127.107.0.9")
            connector = UnixConnector(await place.unix("/run/ws/ws.sock")) if is_unix else TCPConnector()
            url = "http://localhost/ws" if is_unix else f"http://{host}:{port}/ws"
            headers = {} if is_unix else {"Host": "ws.internal"}
            async with (
                ClientSession(connector=connector) as session,
                session.ws_connect(url, headers=headers) as socket_,
            ):
                await socket_.send_str("hello")
                said = await socket_.receive_str(timeout=30)
                await worker.put(having())
                ended = await socket_.receive(timeout=30)
            for sock in place.held:
                sock.close()

    assert said == "echo hello"
    assert ended.type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSE)


@pytest.mark.parametrize("words", [("Hello", "world"), ("Count", "500"), ("Echo", "10", "100000"), ("Fail", "x")])
async def test_grpc_works_at_a_name_and_at_a_socket(words: tuple[str, ...], tmp_path: Path) -> None:
    ca = make_test_ca()
    async with grpc_service(tmp_path, ca, SECRET, HOST) as service:
        upstream = Upstream(f"{HOST}:6443", ca=ca.pem)
        api = Endpoint(Tcp("grpc.internal"), Forward(upstream, (RULE,)), "cluster")
        clear = Endpoint(UnixPath("/run/cluster/grpc.sock"), Forward(replace(upstream, alpn=("h2",)), (RULE,)), "c")
        async with running_worker(tmp_path, resolve={HOST: f"127.0.0.1:{service.port}"}) as worker:
            await worker.put(having(api, clear))
            host, port = await worker.listen(RUN, "proxy")
            place = Place(worker, None, f"http://{host}:{port}", tmp_path)  # type: ignore[arg-type] # not asked
            found = await grpc_call(place.proxy, worker.ca_file, "grpc.internal:443", *words)
            here = await place.unix("/run/cluster/grpc.sock")
            over_socket = await grpc_call("", None, f"unix:{here}", *words)
            for sock in place.held:
                sock.close()

    assert found == over_socket
    assert found["code" if words[0] == "Fail" else "trailers" if words[0] != "Echo" else "count"]
    assert service.seen == [(words[0], SECRET)] * 2


async def test_a_service_of_http_2_alone_answers_clients_of_http_1(tmp_path: Path) -> None:
    ca = make_test_ca()
    async with grpc_service(tmp_path, ca, SECRET, HOST) as service:
        api = Endpoint(Tcp("grpc.internal"), Forward(Upstream(f"{HOST}:6443", ca=ca.pem), (RULE,)), "cluster")
        async with running_worker(tmp_path, resolve={HOST: f"127.0.0.1:{service.port}"}) as worker:
            await worker.put(having(api))
            host, port = await worker.listen(RUN, "proxy")
            place = Place(worker, None, f"http://{host}:{port}", tmp_path)  # type: ignore[arg-type] # not asked
            unary = tmp_path / "unary"
            await asyncio.to_thread(unary.write_bytes, b"\0\0\0\0\5world")
            arguments = ["-x", place.proxy, "-X", "POST", "-H", "TE: trailers", "-H", "Content-Type: application/grpc",
                         "--data-binary", f"@{unary}", "-i", "--raw", "-o", str(tmp_path / "answer")]  # fmt: skip
            status = await place.curl("https://grpc.internal/demo.Service/Hello", *arguments)

    answer = await asyncio.to_thread((tmp_path / "answer").read_bytes)
    assert status == " 200"
    assert b"hello world" in answer
    assert answer.endswith(b"grpc-status: 0\r\n\r\n") or b"\r\ngrpc-status: 0\r\n" in answer
