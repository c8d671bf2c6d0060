"""Whatever an upstream says: a client gets answers that can be read in one way only, each to its own request."""

from __future__ import annotations

import http.client
import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import fuzzed
from support.strict import Message
from support.wire import held

from hostile.fuzz.answering import one_by_one, said
from hostile.fuzz.stage import API, PLAIN, SECRET, Stage, a_stage
from hostile.fuzz.traffic import SIZES
from hostile.fuzz.verdicts import check_client

METHODS = st.sampled_from(("GET", "GET", "GET", "HEAD", "POST", "PUT"))
EXTRA = st.sampled_from(("", "", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: close\r\n"))


class Script:
    """What the upstream says to the first request; every later one gets an answer of its own."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def answer(self, name: str, message: Message) -> Iterable[bytes]:
        """Return what to say."""
        del name
        path = message.first[1]
        if path == b"/first":
            return [piece.replace(b"%FOR%", path) for piece in self.pieces]
        body = b"" if message.first[0] == b"HEAD" else b"hello"
        return [b"HTTP/1.1 200 OK\r\nX-For: %b\r\nContent-Length: 5\r\n\r\n%b" % (path, body)]


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Stage, Script]]:
    script = Script()
    async with a_stage(script.answer) as stage:
        yield stage, script


def a_request(host: str, path: str, method: str, extra: str) -> bytes:
    start = f"{method} {'http://' + host if host == PLAIN else ''}{path} HTTP/1.1\r\nHost: {host}\r\n{extra}"
    return (start + ("Content-Length: 3\r\n\r\nabc" if method in ("POST", "PUT") else "\r\n")).encode()


@fuzzed(120)
@given(
    host=st.sampled_from((PLAIN, API)), method=METHODS, extra=EXTRA, pieces=said(), sizes=SIZES, pipelined=st.booleans()
)
async def test_a_client_reads_each_answer_in_one_way_and_as_its_own(
    scene: tuple[Stage, Script],
    host: str,
    method: str,
    extra: str,
    pieces: list[bytes],
    sizes: list[int],
    pipelined: bool,
) -> None:
    await told(*scene, Case(host, method, extra, pieces, sizes, pipelined))


@pytest.mark.parametrize("host", [PLAIN, API])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("pipelined", [False, True])
async def test_each_odd_thing_by_itself_is_refused_or_read_in_one_way(
    scene: tuple[Stage, Script], host: str, method: str, pipelined: bool
) -> None:
    for words in one_by_one():
        await told(*scene, Case(host, method, "", [words], [], pipelined))


@dataclass
class Case:
    """What one client asks for, what its upstream says to it, how that is cut, and whether it asks twice at once."""

    host: str
    method: str
    extra: str
    pieces: list[bytes]
    sizes: list[int]
    pipelined: bool


async def told(stage: Stage, script: Script, case: Case) -> None:
    """Have the upstream say it, then ask twice more, and judge what the clients were told."""
    host = case.host
    await stage.begin()
    before = held()
    script.pieces, stage.cuts = case.pieces, case.sizes
    first, second = a_request(host, "/first", case.method, case.extra), a_request(host, "/second", "GET", "")

    peer = await stage.client("" if host == PLAIN else host)
    await peer.send(first + (second if case.pipelined else b""))
    await stage.quiet()
    if not stage.guest.records:  # it is not over, and the upstream says no more
        await stage.hang_up()
    if not case.pipelined:
        await peer.send(second)
        await stage.quiet()
    other = await stage.client("" if host == PLAIN else host)
    await other.send(second)
    await stage.quiet()
    await stage.hang_up()

    came, sent = bytes(peer.data), first + second
    answers = check_client(came, sent, ended=peer.has_ended)
    _check_lenient(came, case.method, answers)
    assert "Upgrade" in case.extra or b"101" not in [message.first[1] for message in answers]
    if (
        not case.pipelined or not case.sizes
    ):  # what an upstream says while the next request is on its way is its answer to that
        _check_owners(answers)
        others = check_client(bytes(other.data), second, ended=other.has_ended)
        assert [message.all(b"x-for") for message in others] == [[b"/second"]]
    assert host != API or SECRET.encode() not in came
    await stage.empty()
    assert stage.complaints == []
    assert held() <= before


def _check_owners(answers: list[Message]) -> None:
    """The first answer is to the first request, whatever became of it; the second, if any, to the second."""
    final = [message for message in answers if not message.first[1].startswith(b"1")]
    assert len(final) <= 2
    assert all(message.all(b"x-for") != [b"/second"] for message in final[:1])
    assert all(message.all(b"x-for") == [b"/second"] for message in final[1:]), final


def _check_lenient(came: bytes, method: str, answers: list[Message]) -> None:
    """A reader that forgives much reads the first answer just so."""
    final = [message for message in answers if not message.first[1].startswith(b"10")]
    if not final or not final[0].is_whole or len(final[0].fields) > 90:  # it takes no more than 100
        return
    reader = http.client.HTTPResponse(cast("Any", _Socket(came)), method=method)
    reader.begin()
    if reader.status < 200:  # it knows 100 only
        return
    assert (reader.status, reader.read()) == (int(final[0].first[1]), final[0].body)


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self._data)
