"""Whatever comes to a parser or a socket of moat's own: one error that says so, or an answer; never anything else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from core.daemon.test_server import HEALTH, Service
from core.proxy.server.pairs import plain_pair
from core.proxy.test_hello import a_hello, in_records
from hypothesis import given
from hypothesis import strategies as st
from moat.api.errors import SandboxFailed
from moat.api.rules import Match, ReplaceToken
from moat.daemon.protocol import RegisterRequest, SetupRequest
from moat.daemon.server import Server, bind, serve
from moat.frames import FrameChannel, FrameError, encode
from moat.proxy.hello import Hello, HelloReader
from moat.proxy.http1 import Malformed
from moat.proxy.messages import VERSION, MessageError, SetRun, decode
from moat.proxy.messages import encode as message
from moat.proxy.server.dns import answer, serve_stream
from moat.runtimes import gate
from moat.runtimes.door import OpenDoor, admit, verdict
from support.fuzz import fuzzed
from support.wire import cut, held, listening, turns
from support.worker import a_run

from hostile.fuzz.spoiling import DEEP, VALUES, changed, cut_up, files, objects
from hostile.fuzz.stage import a_rule
from hostile.fuzz.traffic import SIZES

HELLOS = [
    a_hello("api.example.com", "h2"),
    a_hello(None),
    in_records(a_hello("api.example.com", "h2", "http/1.1"), 1, 7),
]
QUERY = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x03api\x07example\x03com\0" + struct.pack("!2H", 1, 1)
HELLO = {
    "type": "hello",
    "version": gate.VERSION,
    "nonce": "n" * 32,
    "sockets": [dict(zip(("name", "kind", "host", "port"), row, strict=True)) for row in gate.SMALL_DOOR],
}
PROBED = {"type": "probed", "interfaces": [["lo", True]], "routes": [], "reached": [], "cookie": 7, "answer": "right"}
MESSAGES = [
    message(
        SetRun(
            a_run(rules=(a_rule(), ReplaceToken(Match("a.example"), "placeholder", "s3cr3t", ("body",)))),
            {"a.example": "127.107.0.1"},
        )
    ),
    {"type": "listen", "run_id": "", "name": "token"},
    {"type": "ping", "id": 1},
    {"type": "stop"},
    {"type": "drop", "run_id": "x"},
    {"type": "spends", "id": 1, "uses": [["run", ["g"], "a.example", "header", 1]]},
    {"type": "entered", "id": 1, "problems": [""]},
    {
        "type": "configure",
        "version": VERSION,
        "ca_certificate": "",
        "ca_key": "",
        "upstream": {"roots": "", "resolve": {}, "allow_cidrs": []},
    },
]
BODIES = {
    "/v1/setup": asdict(SetupRequest(("github",), network_rules=("allow * *",))),
    "/v1/runs": asdict(RegisterRequest("run_00000000000a", network_allow=("a.example",))),
}


@fuzzed(200)
@given(data=st.one_of(st.sampled_from(HELLOS).flatmap(cut_up), st.binary(max_size=60)), sizes=SIZES)
def test_a_client_hello_is_read_or_malformed_however_it_is_cut(data: bytes, sizes: list[int]) -> None:
    def read(pieces: list[bytes]) -> Hello | str | None:
        reader, buffer, found = HelloReader(), bytearray(), None
        try:
            for piece in pieces:
                buffer += piece
                if (found := reader.read(buffer)) is not None:
                    break
        except Malformed as problem:
            return str(problem)
        assert bytes(buffer) == data[: len(buffer)], "the handshake still needs the bytes"
        return found

    assert read(list(cut(data, sizes))) == read([data])


@fuzzed(60)
@given(data=st.sampled_from(HELLOS[:2]).flatmap(cut_up))
def test_a_hello_that_openssl_takes_is_read_as_openssl_reads_it(data: bytes) -> None:
    seen: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: seen.append(name or "")
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with contextlib.suppress(ssl.SSLError):  # it has no certificate, but its callback comes before that
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()

    if seen:
        hello = HelloReader().read(bytearray(data))
        assert hello is not None
        assert hello.server_name == seen[0]


def _question(query: bytes, reply: bytes, answers: int) -> bytes:
    """Return the question in reply, which is that of query."""
    question = reply[12 : len(reply) - 16 * answers]
    assert query[12:].startswith(question)
    return question


@fuzzed(200)
@given(query=st.one_of(cut_up(QUERY), st.binary(max_size=60)))
def test_a_dns_message_gets_an_answer_to_itself_or_none(query: bytes) -> None:
    asked: list[str] = []

    def look_up(host: str) -> str | None:
        asked.append(host)
        return "127.107.0.1" if host == "api.example.com" else None

    reply = answer(query, look_up)

    assert len(asked) <= 1
    if reply is not None:
        number, flags, questions, answers, *rest = struct.unpack_from("!6H", reply)
        assert (number, flags >> 15, rest) == (int.from_bytes(query[:2]), 1, [0, 0])
        assert answers <= questions <= 1
        assert len(reply) == 12 + 16 * answers + len(_question(query, reply, answers))
        assert answers == 0 or (asked, reply[-4:]) == (["api.example.com"], bytes((127, 107, 0, 1)))


@fuzzed(40)
@given(data=st.lists(st.one_of(st.just(QUERY), cut_up(QUERY), st.binary(max_size=30)), max_size=4), sizes=SIZES)
async def test_dns_over_tcp_ends_with_what_is_none_and_answers_what_came_before(
    data: list[bytes], sizes: list[int]
) -> None:
    client, server = await plain_pair()
    heard: list[str] = []
    with listening(heard):
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_stream(server, lambda _: None))
            for piece in cut(b"".join(len(each).to_bytes(2) + each for each in data), sizes):
                client.write(piece)
                await turns(2)
            await turns()
            client.close()
        await turns()

    expected = [answer(each, lambda _: None) for each in data]
    until = expected.index(None) if None in expected else len(expected)
    assert bytes(client.buffer) == b"".join(len(each).to_bytes(2) + each for each in expected[:until] if each)
    assert heard == []


@fuzzed(150)
@given(wire=st.one_of(st.sampled_from(MESSAGES).flatmap(changed), VALUES))
def test_a_message_between_daemon_and_worker_is_one_or_is_not(wire: Any) -> None:
    if not isinstance(wire, dict):
        return
    with contextlib.suppress(MessageError):
        decode(wire)


@fuzzed(60)
@given(
    data=st.one_of(
        cut_up(encode({"type": "hello"}) * 3),
        st.binary(max_size=40),
        files(HELLO).map(lambda body: len(body).to_bytes(4) + b"\0" + body),
    ),
    sizes=SIZES,
    count=st.integers(0, 3),
)
async def test_a_channel_gives_messages_or_one_error_and_keeps_no_descriptor(
    data: bytes, sizes: list[int], count: int
) -> None:
    before = held()
    ours, theirs = socket.socketpair()
    channel = FrameChannel(ours)
    given = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    with contextlib.suppress(OSError), theirs:
        for number, piece in enumerate(cut(data, sizes)):
            socket.send_fds(theirs, [piece], given if number == 0 else [])
            await turns(1)
    for one in given:
        os.close(one)
    try:
        while (frame := await channel.receive()) is not None:
            assert isinstance(frame[0], dict)
            for one in frame[1]:
                os.close(one)
    except FrameError:
        pass
    channel.close()
    assert held() == before


@fuzzed(100)
@given(said=objects(HELLO), later=objects(PROBED), count=st.integers(0, 2))
async def test_a_gate_that_says_anything_else_is_refused_once_and_leaves_nothing(
    said: Any, later: Any, count: int
) -> None:
    before = held()
    ours, theirs = socket.socketpair()
    channel, other = FrameChannel(ours), FrameChannel(theirs)
    given = [socket.socket() for _ in range(count)]
    for words in (said, later):
        other.send(words, tuple(sock.fileno() for sock in given))
    with pytest.raises(SandboxFailed) as caught:
        await admit(channel, nonce="n" * 32, answer="right", taken_cookies=(), hand_on=_taken)
    frame = await other.receive()
    for sock in given:
        sock.close()
    other.close()

    assert frame == ({"type": "refused", "problem": caught.value.problem}, [])
    assert held() == before


async def _taken(sockets: object) -> None:
    raise AssertionError(f"{sockets} are no door")


@fuzzed(150)
@given(probed=objects(PROBED))
def test_only_a_gate_that_says_exactly_what_a_sealed_one_says_is_believed(probed: Any) -> None:
    try:
        problem = verdict(probed, answer="right", cookie=7, visitors=0)
    except (TypeError, ValueError):  # which the caller knows
        return
    if not problem:
        assert ["lo", True] in probed["interfaces"]
        assert {key: probed[key] for key in PROBED if key != "interfaces"} == {
            key: value for key, value in PROBED.items() if key != "interfaces"
        }


@fuzzed(60)
@given(
    words=st.lists(
        st.one_of(objects({"type": "exited", "code": 3}), objects({"type": "connected", "id": 1})), max_size=4
    )
)
async def test_what_an_open_gate_reports_ends_no_watch_but_its_own(words: list[Any]) -> None:
    before = held()
    ours, theirs = socket.socketpair()
    door, other = OpenDoor(FrameChannel(ours), (), 7), FrameChannel(theirs)
    heard: list[str] = []
    with listening(heard):
        for each in words:
            other.send(each)
        other.close()
        code = await door.watch()
    assert code is None or isinstance(code, int)
    assert [line for line in heard if "broke the protocol" not in line] == []
    assert held() == before


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "daemon" / "daemon.sock"
    runner = await serve(Server(Service(), lambda: HEALTH, lambda: None).application(), bind(path))
    yield path
    await runner.cleanup()


async def ask(path: Path, data: bytes, *, is_all: bool = False) -> bytes:
    """Send bytes to the management API; return what came back until it closed. is_all: say that nothing follows."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    if is_all:
        writer.write_eof()
    async with asyncio.timeout(30):
        came = await reader.read()
    writer.close()
    return came


@fuzzed(100)
@given(where=st.sampled_from(sorted(BODIES)), data=st.data())
async def test_a_body_that_is_none_gets_one_error_and_no_traceback(api: Path, where: str, data: st.DataObject) -> None:
    body = data.draw(st.one_of(files(BODIES[where]), DEEP))
    heard: list[str] = []
    with listening(heard):
        came = await ask(
            api,
            b"POST %b HTTP/1.1\r\nHost: moat\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % (where.encode(), len(body))
            + body,
        )

    head, _, answered = came.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"200", b"201", b"400")
    if head.split(b" ")[1] == b"400":
        error = json.loads(answered)["error"]
        assert error["code"] == "UsageError"
        assert 0 < len(error["message"]) < 2_000
    assert heard == []


@fuzzed(60)
@given(
    data=st.one_of(
        cut_up(
            b"PATCH /v1/runs/abc HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 21\r\n\r\n"
            + b'{"container_id": "a"}\n'
        ),
        cut_up(b"DELETE /v1/runs/abc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        st.binary(max_size=60),
    )
)
async def test_bytes_that_are_no_request_get_an_answer_or_an_end_and_no_traceback(api: Path, data: bytes) -> None:
    heard: list[str] = []
    with listening(heard):
        came = await ask(api, data, is_all=True)

    assert came == b"" or came.startswith(b"HTTP/1.")
    assert b"Traceback" not in came
    assert b" 500 " not in came[:20]
    assert [line for line in heard if "Error handling request" not in line and "aiohttp" not in line] == []
