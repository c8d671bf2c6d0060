"""A run whose many requests each hold a body has one bound for all of them; what another run holds is its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from moat.api.endpoints import Endpoint, ProxyPath, Respond
from moat.api.rules import CaptureToken, Match, OnlyTools, ReplaceToken, Rewriter, RewriteResponse, Rule
from moat.api.runs import NetworkPolicy
from moat.proxy.limits import Limits
from support.strict import Message
from support.wire import Peer, turns
from support.worker import OTHER_RUN, RUN, a_run

from hostile.fuzz.frames import PREFACE, SETTINGS, block, frame
from hostile.fuzz.over_http2 import got
from hostile.fuzz.stage import API, CLIENT_TLS, Stage, a_stage
from hostile.fuzz.test_echoes import OK, silent
from hostile.fuzz.test_http2_garbage import H2_ONLY

PLACEHOLDER = "moat-placeholder"
CALL = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "read", "arguments": PLACEHOLDER}}
BODY = json.dumps(CALL).encode().ljust(4_000)
LIMITS = Limits(held_bytes=10_000)  # for two of them and a half
RULES: dict[str, Rule] = {
    "placeholder": ReplaceToken(Match(API), PLACEHOLDER, "s3cr3t-value", ("body",), 4_000, grant="example"),
    "tools": OnlyTools(Match(API), ("read",), 4_000),
}


class Client:
    """One request with a body, in two parts, over either version."""

    def __init__(self, peer: Peer, version: str) -> None:
        self.peer = peer
        self._is_2 = version == "HTTP/2"

    async def begin(self) -> None:
        """Send the head and most of the body."""
        await self.peer.send(self._head() + self._data(BODY[:3_900], 0))

    async def end(self) -> None:
        """Send the rest."""
        await self.peer.send(self._data(BODY[3_900:], 1))

    @property
    def status(self) -> str:
        """What it was answered, "" for nothing yet."""
        if not self._is_2:
            return self.peer.data[9:12].decode()
        fields = got(self.peer, {1: "POST"})[1][0]
        return next((value.decode() for name, value in fields if name == b":status"), "")

    def _head(self) -> bytes:
        if not self._is_2:
            lines = f"Host: {API}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
            return f"POST /mcp HTTP/1.1\r\n{lines}".encode()
        pairs = [(":method", "POST"), (":scheme", "https"), (":authority", API), (":path", "/mcp")]
        pairs += [("content-type", "application/json"), ("content-length", str(len(BODY)))]
        return PREFACE + SETTINGS + frame(1, 4, 1, block(pairs))

    def _data(self, data: bytes, flags: int) -> bytes:
        return frame(0, flags, 1, data) if self._is_2 else data


async def a_client(stage: Stage, version: str) -> Client:
    """Return a client whose request has begun."""
    client = Client(await stage.client(API, (), H2_ONLY if version == "HTTP/2" else CLIENT_TLS), version)
    await client.begin()
    await stage.quiet()
    return client


def held(stage: Stage) -> int:
    """Return how much of bodies the run has held."""
    run = stage.guest.house._admission.by_id(RUN)
    assert run is not None
    return run.holds.held_bytes


def to_another_run(stage: Stage, *rules: Rule) -> None:
    """Have further clients be of another run, with the same rules."""
    run = a_run(OTHER_RUN, token="s3cr3t-other", rules=rules, policy=NetworkPolicy("strict", ()))
    stage.guest.house.put(run, {})
    stage.door = stage.guest.listen(OTHER_RUN, "proxy")


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("kind", sorted(RULES))
async def test_many_requests_that_hold_a_body_have_one_bound_and_leave_another_run_its_own(
    kind: str, version: str
) -> None:
    async with a_stage(OK, rules=(RULES[kind],), limits=LIMITS) as stage:
        first, second, third = [await a_client(stage, version) for _ in range(3)]
        told = [each.status for each in (first, second, third)]
        before, reasons = held(stage), [(one.outcome, one.reason) for one in stage.guest.records]
        door = stage.door
        to_another_run(stage, RULES[kind])
        other = await a_client(stage, version)
        stage.door = door
        for each in (first, second, other):
            await each.end()
        await stage.quiet()
        again = await a_client(stage, version)
        await again.end()
        await stage.quiet()
        left = b"".join(bytes(peer.data) for peer in stage.seen)

        assert told == ["", "", "503"]
        assert before == 7_800
        assert reasons == [
            ("refused", "the run holds as much of bodies as it may, 10000 bytes; others of its own must end first")
        ]
        assert version == "HTTP/2" or b"X-Moat-Error: held\r\n" in third.peer.data
        assert [each.status for each in (first, second, other, again)] == ["200"] * 4
        assert left.count(b"POST /mcp") == 4
        assert held(stage) == 0


async def test_who_goes_away_or_sends_too_much_holds_nothing() -> None:
    async with a_stage(OK, rules=(RULES["placeholder"],), limits=LIMITS) as stage:
        gone = await a_client(stage, "HTTP/1.1")
        gone.peer.close(abort=True)
        await stage.until(lambda: not held(stage))
        large = await stage.client(API)
        chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
        head = f"POST / HTTP/1.1\r\nHost: {API}\r\nContent-Type: application/json\r\n".encode()
        await large.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        await stage.quiet()
        assert held(stage) == len(chunk)
        await large.send(chunk)
        await stage.quiet()

        assert held(stage) == 0
        await large.send(b"0\r\n\r\n")
        await stage.quiet()
        assert large.data.startswith(b"HTTP/1.1 200")


HEAD = f"POST / HTTP/1.1\r\nHost: {API}\r\nContent-Type: application/json\r\n"


async def a_service_that_does_not_read(stage: Stage) -> tuple[Peer, Peer]:
    """Return a client, and the service at the other end of its connection."""
    client = await stage.client(API)
    await client.send(f"GET / HTTP/1.1\r\nHost: {API}\r\n\r\n".encode())
    await stage.quiet()
    (service,) = stage.seen
    await service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await stage.quiet()
    service.hush()
    service.pause()
    return client, service


def replacing(limit: int) -> ReplaceToken:
    return ReplaceToken(Match(API), PLACEHOLDER, "s3cr3t-value", ("body",), limit, grant="example")


async def test_a_body_counts_until_the_service_has_taken_it() -> None:
    size = 24_000_000  # more than the kernel takes by itself
    async with a_stage(silent, rules=(replacing(size),), limits=Limits(held_bytes=30_000_000)) as stage:
        first, service = await a_service_that_does_not_read(stage)
        await first.send(f"{HEAD}Content-Length: {size}\r\n\r\n".encode() + bytes(size))
        await stage.until(lambda: held(stage) == size)
        second = await stage.client(API)
        await second.send(f"{HEAD}Content-Length: {size}\r\n\r\n".encode() + bytes(8_000_000))
        await stage.until(lambda: bool(second.data))

        assert second.data.startswith(b"HTTP/1.1 503")
        assert held(stage) == size
        service.resume()
        await stage.until(lambda: not held(stage))
        await stage.until(lambda: service.data.endswith(bytes(1_000)))


async def test_so_does_the_beginning_of_one_that_is_too_long_to_be_looked_at() -> None:
    size = 48_000_000
    async with a_stage(silent, rules=(replacing(size // 2),), limits=Limits(held_bytes=30_000_000)) as stage:
        first, service = await a_service_that_does_not_read(stage)
        await first.send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode() + bytes(size))
        await stage.until(lambda: held(stage) > 23_000_000)
        await turns(3_000)

        assert held(stage) > 23_000_000
        service.resume()
        await first.send(b"\r\n0\r\n\r\n")
        await stage.until(lambda: service.data.endswith(b"\r\n0\r\n\r\n"))
        assert held(stage) == 0


def beginning(name: str, message: Message) -> Iterable[bytes]:
    """An upstream that begins an answer that rules want whole, and does not end it."""
    del name, message
    return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n" + b"[" * 4_000,)


@pytest.mark.parametrize("otherwise", ["pass", "refuse"])
async def test_answers_that_are_held_count_too(otherwise: str) -> None:
    how = Rewriter("nobody")
    rule = RewriteResponse(Match(API), how, limit_bytes=8_000, otherwise="pass" if otherwise == "pass" else "refuse")
    async with a_stage(beginning, rules=(rule,), limits=Limits(held_bytes=20_000)) as stage:
        peers = []
        for _ in range(3):
            peers.append(await stage.client(API))
            await peers[-1].send(f"GET / HTTP/1.1\r\nHost: {API}\r\n\r\n".encode())
            await stage.quiet()

        assert [bytes(peer.data[9:12]) for peer in peers] == [b"", b"", b"200" if otherwise == "pass" else b"502"]
        assert peers[2].data.endswith(b"[" * 4_000) is (otherwise == "pass")
        assert held(stage) == (2 + (otherwise == "pass")) * 8_000 - 8_000 * (otherwise == "pass")
        for peer in peers:
            peer.close(abort=True)
        await stage.until(lambda: not held(stage))


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_no_refresh_token_is_spent_where_its_answer_has_no_room(version: str) -> None:
    at = Match(API, ("POST",), ("/mcp",))
    capture = CaptureToken(at, "example", {}, {"access_token": PLACEHOLDER}, limit_bytes=6_000)
    async with a_stage(silent, rules=(capture,), limits=LIMITS) as stage:
        client = await a_client(stage, version)
        await client.end()
        await stage.quiet()

        assert client.status == "503"
        assert stage.seen == []
        assert held(stage) == 0


async def test_questions_to_an_endpoint_count_too() -> None:
    endpoint = Endpoint(ProxyPath("/_moat/words/"), Respond("words"), "example")
    head = b"POST /_moat/words/ HTTP/1.1\r\nHost: 127.0.0.1:19080\r\nContent-Length: 9000\r\n\r\n"
    async with a_stage(OK, limits=LIMITS) as stage:
        stage.guest.house.put(replace(a_run(), endpoints=(endpoint,)), {})
        peers = [await stage.client() for _ in range(2)]
        for peer in peers:
            await peer.send(head + bytes(6_000))
            await stage.quiet()

        assert [bytes(peer.data[9:12]) for peer in peers] == [b"", b"503"]
        assert b"X-Moat-Error: held\r\n" in peers[1].data
        peers[0].close(abort=True)
        await stage.until(lambda: not held(stage))
