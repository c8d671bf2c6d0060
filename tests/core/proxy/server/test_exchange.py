from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moat.api.runs import ExchangeRecord
from moat.proxy.bodies import MAX_CHUNKS, ChunkedReader
from moat.proxy.limits import Limits
from moat.proxy.server.stream import PlainStream
from support.worker import RUN, a_run

from core.proxy.server.house_of import Guest, a_house, scripted
from core.proxy.server.pairs import CA, LEAVES, turns_during, until

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str = "/", method: str = "GET", *lines: str) -> bytes:
    extra = "".join(f"{line}\r\n" for line in lines)
    return f"{method} http://a.example{path} HTTP/1.1\r\nHost: a.example\r\n{extra}\r\n".encode()


async def exchanged(
    *answers: bytes, requests: tuple[bytes, ...] = (get(),), until_bytes: bytes = b"\r\n\r\nok"
) -> tuple[list[bytes], list[bytes], list[ExchangeRecord]]:
    """Send requests one after the other; return what the client got, the heads the upstream got, and the records."""
    async with scripted(*answers) as (pin, heads), a_house(a_run(), resolve={"a.example": pin}) as guest:
        client = await guest.connect(guest.listen(RUN, "proxy"))
        got = [await guest.ask(client, request, until_bytes) for request in requests]
        await until(lambda: len(guest.records) == len(requests))
    return got, heads, guest.records


@contextlib.asynccontextmanager
async def asking(talk: Talk, limits: Limits | None = None) -> AsyncIterator[tuple[Guest, PlainStream]]:
    """Have a.example be a server that talks so, and yield a guest with a client that may ask it."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    pin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with a_house(a_run(), resolve={"a.example": pin}, limits=limits) as guest:
        yield guest, await guest.connect(guest.listen(RUN, "proxy"))
    server.close()


async def test_a_kept_connection_carries_the_next_request() -> None:
    got, heads, records = await exchanged(OK, OK, requests=(get("/1"), get("/2")))

    assert [answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in got] == [True, True]
    assert [head.split(b" ")[1] for head in heads] == [b"/1", b"/2"]
    assert [record.outcome for record in records] == ["forwarded", "forwarded"]


async def test_a_stale_kept_connection_is_replaced_once_without_the_client_noticing() -> None:
    got, heads, records = await exchanged(OK, b"!", OK, requests=(get("/1"), get("/2")))

    assert got[1].endswith(b"ok")
    assert [head.split(b" ")[1] for head in heads] == [b"/1", b"/2", b"/2"]
    assert len(records) == 2


async def test_what_cannot_be_sent_twice_is_not() -> None:
    got, heads, _ = await exchanged(OK, b"!", OK, requests=(get("/1"), get("/2", "POST")), until_bytes=b"\r\n\r\n")

    assert b"502 Bad Gateway" in got[1]
    assert len(heads) == 2


async def test_hop_by_hop_fields_are_not_forwarded_and_host_is_ours() -> None:
    _, heads, _ = await exchanged(
        OK, requests=(get("/", "GET", "Proxy-Authorization: Basic s3cr3t", "Connection: X-A", "X-A: 1", "Accept: x"),)
    )

    assert heads[0] == b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: x\r\n\r\n"


async def test_an_answer_without_length_reaches_the_client_in_chunks() -> None:
    got, _, _ = await exchanged(b"!HTTP/1.1 200 OK\r\n\r\nok", until_bytes=b"0\r\n\r\n")

    assert b"Transfer-Encoding: chunked\r\n" in got[0]
    assert got[0].endswith(b"2\r\nok\r\n0\r\n\r\n")


async def test_a_truncated_answer_breaks_the_clients_connection_off() -> None:
    got, _, records = await exchanged(b"!HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", until_bytes=b"never")

    assert got[0].endswith(b"\r\n\r\nok")
    assert records[0].reason == "the upstream broke off"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"!", "closed the connection"),
        (b"!nonsense\r\n\r\n", "status line"),
        (b"!HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (b"!HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "unasked"),
        (b"!" + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, "interim"),
        (b"!HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "64 KiB"),
    ],
    ids=["nothing", "nonsense", "two lengths", "101 unasked", "1xx flood", "endless head"],
)
async def test_an_upstream_that_makes_no_sense_is_a_502(answer: bytes, reason: str) -> None:
    got, _, records = await exchanged(answer, until_bytes=b"moat: ")

    assert b"HTTP/1.1 502 Bad Gateway" in got[0]
    assert (records[0].status, records[0].outcome) == (502, "failed")
    assert reason in records[0].reason


async def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    got, _, _ = await exchanged(head, OK, requests=(get("/1", "HEAD"), get("/2")), until_bytes=b"\r\n\r\n")

    assert got[0].endswith(b"Content-Length: 2\r\n\r\n")


async def test_early_hints_are_relayed_and_http_3_is_not_offered_on() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nAlt-Svc: h3\r\nContent-Length: 2\r\n\r\nok"
    got, _, _ = await exchanged(answer)

    assert got[0].startswith(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    assert b"Alt-Svc" not in got[0]


async def test_an_answer_before_the_bodys_end_closes_the_connection_after_it() -> None:
    request = get("/", "POST", "Content-Length: 1000000") + b"only the beginning"
    got, _, records = await exchanged(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nok", requests=(request,))

    assert b"HTTP/1.1 413 Too Large" in got[0]
    assert b"Connection: close" in got[0]
    assert records[0].status == 413


async def test_trailers_pass() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n"
    got, _, _ = await exchanged(answer, until_bytes=b"Grpc-Status: 0\r\n\r\n")

    assert got[0].endswith(b"2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n")


async def test_an_upload_of_unknown_length_in_single_bytes_arrives_with_its_trailers() -> None:
    bodies: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    async with asking(take) as (guest, client):
        for byte in get("/", "POST", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n":
            client.write(bytes((byte,)))
            await asyncio.sleep(0)
        answer = await guest.ask(client, b"", b"\r\n\r\nok")

    assert answer.startswith(b"HTTP/1.1 200 ")
    reader, sent = ChunkedReader(), bytearray(bodies[0])
    assert reader.take(sent) == b"hello"
    assert reader.trailers == [("X-Sum", "5")]


async def test_an_answer_in_single_bytes_is_the_same_answer() -> None:
    answer = b"~HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n"
    got, _, records = await exchanged(answer, until_bytes=b"0\r\n\r\n")

    assert got[0].endswith(b"0\r\n\r\n")
    assert records[0].response_bytes == 5


@contextlib.contextmanager
def ending(*, says_goodbye: bool) -> Iterator[str]:
    """Run a TLS server whose answer ends with the connection, as Python's http.server ends it, or with close_notify."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # its name
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"amount: 100")
            if says_goodbye:
                with contextlib.suppress(OSError):
                    self.connection.unwrap()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = LEAVES.context("a.example").wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("says_goodbye", [True, False], ids=["with close_notify", "cut"])
async def test_an_answer_that_ends_with_the_connection_ends_well_only_with_the_goodbye_of_tls(
    says_goodbye: bool,
) -> None:
    with ending(says_goodbye=says_goodbye) as pin:
        async with a_house(a_run(), roots=CA.certificate_pem, resolve={"a.example": pin}) as guest:
            client = await guest.tls_through(guest.listen(RUN, "proxy"), "a.example")
            answer = await guest.ask(client, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"0\r\n\r\n")
            await until(lambda: len(guest.records) == 1)

    assert b"amount: 100" in answer
    assert answer.endswith(b"0\r\n\r\n") == says_goodbye
    assert guest.records[0].reason == ("" if says_goodbye else "the upstream broke off")


async def test_a_client_that_only_listens_is_not_cut_in_the_middle_of_its_body() -> None:
    bodies: list[bytes] = []
    limit_s = 0.05
    clock = asyncio.get_running_loop().time

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        bodies.append(await reader.readexactly(10))
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")
        writer.close()

    async with asking(talk, limits=Limits(body_idle_s=limit_s)) as (guest, client):
        began = await guest.ask(client, get("/", "POST", "Content-Length: 10") + b"hello", b"first")
        silent_until = clock() + 4 * limit_s
        await until(lambda: clock() > silent_until)
        ended = await guest.ask(client, b"world", b"0\r\n\r\n")

    assert began.startswith(b"HTTP/1.1 200 ")
    assert ended.endswith(b"4\r\nlast\r\n0\r\n\r\n")
    assert bodies == [b"helloworld"]


EXPECTING = get("/", "POST", "Content-Length: 5", "Expect: 100-continue")


async def test_a_client_that_waits_for_100_is_told_by_the_upstream_and_not_by_us() -> None:
    bodies: list[bytes] = []
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue\r\n" in await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        bodies.append(await reader.readexactly(5))
        writer.write(OK)
        writer.close()

    async with asking(talk) as (guest, client):
        client.write(EXPECTING)
        await asked.wait()
        assert not client.buffer
        go_on.set()
        interim = await guest.ask(client, b"", b"\r\n\r\n")
        final = await guest.ask(client, b"hello", b"\r\n\r\nok")

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert final.startswith(b"HTTP/1.1 200 ")
    assert bodies == [b"hello"]


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"417 Expectation Failed"])
async def test_a_final_answer_instead_of_100_passes_and_ends_the_connection(status: bytes) -> None:
    got, _, records = await exchanged(OK.replace(b"200 OK", status), requests=(EXPECTING,))

    assert got[0].startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close\r\n" in got[0]
    assert (records[0].status, records[0].request_bytes) == (int(status[:3]), 0)


async def test_repeated_fields_keep_their_order_and_spelling_both_ways() -> None:
    up = ("X-b: 1", "Cookie: a=1", "x-A: 2", "X-B: 3", "ACCEPT: x, y", "accept: z")
    down = b"set-cookie: a=1\r\nX-a: 1\r\nSet-Cookie: b=2\r\nx-A: 2\r\nSET-COOKIE: a=3\r\n"
    got, heads, _ = await exchanged(OK.replace(b"OK\r\n", b"OK\r\n" + down), requests=(get("/", "GET", *up),))

    assert heads[0].endswith(("\r\n".join(up) + "\r\n\r\n").encode())
    assert down in got[0]


async def test_others_have_their_turns_while_very_many_small_chunks_go_up() -> None:
    sent, count = bytearray(), 160 * MAX_CHUNKS

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not sent.endswith(b"0\r\n\r\n"):
            sent.extend(await reader.read(1_000_000))
        writer.write(OK)
        await reader.read()
        writer.close()

    async with asking(take) as (guest, client):
        wire = get("/", "POST", "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * count + b"0\r\n\r\n"
        answer, turns = await turns_during(guest.ask(client, wire, b"\r\n\r\nok"))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert sent.count(b"x") >= count
    assert turns >= 160
