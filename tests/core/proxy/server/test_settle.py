from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable

import brotli  # type: ignore[import-untyped] # brotli has no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from moat.api.http import Headers, ResponseHead
from moat.api.rules import CaptureToken, Instead, Match, Rewriter, RewriteResponse
from moat.proxy.answering import Answering
from moat.proxy.bodies import MAX_CHUNKS, BodyReader, reader_for
from moat.proxy.capture import Caught
from moat.proxy.holds import Share
from moat.proxy.http1 import CHUNKED, UNTIL_CLOSE, Framing, Response
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import Scrub, Spent, mask
from moat.proxy.server.settle import Ready, Resumed, settle
from moat.proxy.whole import WholeTask

from core.proxy.server.pairs import turns_during

MATCH = Match("api.example.com", (), ("/token",))
CAPTURE = CaptureToken(MATCH, "g", {}, {"access_token": "moat-access"})
INSTEAD = RewriteResponse(MATCH, Instead(200, "{}"), statuses=(403,))
SECRET = "s3cr3t-that-was-handed-out"


class Bytes:
    """Bytes that come piece by piece; is_open: the peer then says nothing instead of ending."""

    def __init__(self, *pieces: bytes, is_open: bool = False) -> None:
        self.buffer = bytearray()
        self._pieces = list(pieces)
        self._is_open = is_open

    async def more(self) -> bool:
        if not self._pieces:
            if self._is_open:
                await asyncio.Event().wait()
            return False
        self.buffer += self._pieces.pop(0)
        return True


def a_response(framing: Framing, *headers: tuple[str, str], status: int = 200) -> Response:
    pairs = (("Content-Type", "application/json"), *headers)
    return Response(ResponseHead(status, Headers(pairs)), framing, {name.lower(): (each,) for name, each in pairs})


async def nobody(grant: str, found: Caught) -> None:
    raise AssertionError("nothing is to be kept")


async def read(reader: BodyReader, source: Bytes) -> bytes:
    body = b""
    while not reader.is_done:
        body += reader.take(source.buffer)
        if not reader.is_done and not source.buffer and not await source.more():
            return body + reader.end()
    return body


async def settled(
    task: WholeTask, source: Bytes, framing: Framing, *headers: tuple[str, str], status: int = 200, hold_s: float = 20
) -> tuple[Response, bytes]:
    response = a_response(framing, *headers, status=status)
    response, reader = await settle(task, response, reader_for(framing), source, nobody, Share(), hold_s)
    return response, await read(reader, source)


async def test_an_answer_that_is_replaced_has_its_own_length_and_leaves_no_connection_behind() -> None:
    response, body = await settled(WholeTask((INSTEAD,)), Bytes(), Framing("length", 10**9), ("ETag", "1"), status=403)

    assert (response.head.status, body, response.framing) == (200, b"{}", Framing("length", 2))
    assert response.head.headers.get("Content-Length") == "2"
    assert not response.keeps_alive


async def test_an_answer_that_no_rule_fits_streams() -> None:
    response = a_response(CHUNKED)
    reader = reader_for(CHUNKED)

    assert await settle(WholeTask((INSTEAD,)), response, reader, Bytes(), nobody, Share()) == (response, reader)


@given(body=st.binary(min_size=11, max_size=200), size=st.integers(1, 20))
async def test_what_is_too_long_goes_on_to_its_last_byte(body: bytes, size: int) -> None:
    rule = RewriteResponse(MATCH, Rewriter("never-called"), limit_bytes=10)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    response, seen = await settled(WholeTask((rule,)), Bytes(*pieces), UNTIL_CLOSE)

    assert seen == body
    assert response.framing is UNTIL_CLOSE


async def test_what_does_not_end_is_let_go_after_a_while_and_then_streams() -> None:
    rule = RewriteResponse(MATCH, Rewriter("never-called"))
    source = Bytes(b"5\r\nfirst\r\n", is_open=True)
    response, reader = await settle(
        WholeTask((rule,)), a_response(CHUNKED), reader_for(CHUNKED), source, nobody, Share(), 0.05
    )
    first = reader.take(source.buffer)
    source.buffer += b"6\r\nsecond\r\n0\r\nX-Sum: 1\r\n\r\n"

    assert (first, reader.take(source.buffer), reader.is_done) == (b"first", b"second", True)
    assert reader.trailers == [("X-Sum", "1")]
    assert response.framing is CHUNKED


async def test_what_must_not_pass_as_it_came_is_refused_when_it_is_too_long_or_too_slow() -> None:
    strict = RewriteResponse(MATCH, Rewriter("never-called"), limit_bytes=5, otherwise="refuse")
    for source, hold_s in ((Bytes(b"123456"), 20.0), (Bytes(b"1", is_open=True), 0.05)):
        for task in (WholeTask((strict,)), WholeTask((), CaptureToken(MATCH, "g", {}, CAPTURE.tokens, (), 5))):
            with pytest.raises(Refusal) as refused:
                await settled(task, source, Framing("length", 5) if hold_s < 1 else UNTIL_CLOSE, hold_s=hold_s)
            assert refused.value.status == 502


@pytest.mark.parametrize("pieces", [(), (b"3\r\nabc",), (b"zz\r\n",)])
async def test_what_breaks_off_is_a_502(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(Refusal) as refused:
        await settled(WholeTask((RewriteResponse(MATCH, Rewriter("x")),)), Bytes(*pieces), CHUNKED)

    assert refused.value.status == 502


async def test_tokens_are_kept_before_the_answer_is_made_and_gone_from_all_of_it() -> None:
    spent, kept = Spent(), []

    async def keep(grant: str, found: Caught) -> None:
        kept.append((grant, dict(found.tokens)))

    body = json.dumps({"access_token": SECRET, "hint": f"Bearer {SECRET}"}).encode()
    framing = Framing("length", len(body))
    response = a_response(framing, ("Set-Cookie", f"t={SECRET}"), ("ETag", '"1"'))
    task = WholeTask((), CAPTURE, spent)
    response, reader = await settle(task, response, reader_for(framing), Bytes(body), keep, Share())
    hidden = mask(len(SECRET)).decode()

    assert kept == [("g", {"access_token": SECRET})]
    assert json.loads(reader.take(bytearray())) == {"access_token": "moat-access", "hint": f"Bearer {hidden}"}
    assert response.head.headers.get("Set-Cookie") == f"t={hidden}"
    assert "ETag" not in response.head.headers
    assert spent.scrub.text(f"later: {SECRET}") == f"later: {hidden}"


async def test_where_they_are_not_kept_there_is_no_answer() -> None:
    async def keep(grant: str, found: Caught) -> None:
        raise Refusal(503, "no room")

    body = json.dumps({"access_token": SECRET}).encode()
    framing = Framing("length", len(body))
    with pytest.raises(Refusal, match="no room"):
        await settle(WholeTask((), CAPTURE), a_response(framing), reader_for(framing), Bytes(body), keep, Share())


def test_a_body_that_is_there_leaves_buffers_alone() -> None:
    buffer, reader = bytearray(b"next"), Ready(b"body")

    assert (reader.take(buffer), reader.is_done, bytes(buffer)) == (b"body", True, b"next")
    assert Ready(b"").is_done


@given(size=st.integers(1, 60), packed=st.booleans(), chunked=st.booleans(), note=st.text(max_size=20))
async def test_however_the_answer_is_cut_the_client_gets_the_same(
    size: int, packed: bool, chunked: bool, note: str
) -> None:
    async def keep(grant: str, found: Caught) -> None:
        kept.append(dict(found.tokens))

    kept: list[dict[str, str]] = []
    plain = json.dumps({"access_token": SECRET, "note": note}).encode()
    body = gzip.compress(plain) if packed else plain
    framing = CHUNKED if chunked else Framing("length", len(body))
    wire = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    source = Bytes(*(wire[at : at + size] for at in range(0, len(wire), size)))
    response = a_response(framing, *((("Content-Encoding", "gzip"),) if packed else ()))
    response, reader = await settle(WholeTask((), CAPTURE), response, reader_for(framing), source, keep, Share())

    told = reader.take(source.buffer)
    assert json.loads(told) == {"access_token": "moat-access", "note": note}
    assert response.head.headers.items == (("Content-Type", "application/json"), ("Content-Length", str(len(told))))
    assert kept == [{"access_token": SECRET}]


def test_what_was_held_goes_on_piece_by_piece_at_its_clients_pace() -> None:
    body = bytes(range(256)) * 1_000
    inner = reader_for(Framing("length", 3))
    for reader, buffer in ((Ready(body), bytearray()), (Resumed(body, inner), bytearray(b"end"))):
        pieces = []
        while not reader.is_done:
            pieces.append(reader.take(buffer))
            assert reader.has_more or reader.is_done or isinstance(reader, Resumed)

        assert max(map(len, pieces)) <= 65_536
        assert b"".join(pieces) == body + (b"end" if isinstance(reader, Resumed) else b"")


def test_what_was_held_is_not_lost_with_a_body_that_may_end_anywhere() -> None:
    reader = Resumed(b"held" * 30_000, reader_for(UNTIL_CLOSE))
    first = reader.take(bytearray())

    assert not reader.may_end_here
    assert first + reader.end() == b"held" * 30_000


@pytest.mark.parametrize("pack", [zstd.compress, brotli.compress, gzip.compress])
def test_what_was_held_of_an_encoded_body_does_not_wait_for_more(pack: Callable[[bytes], bytes]) -> None:
    body = hashlib.shake_256(b"").digest(400_000).hex().encode()
    packed = pack(body)
    coding = {zstd.compress: "zstd", brotli.compress: "br"}.get(pack, "gzip")
    response = a_response(Framing("length", len(packed) + 9), ("Content-Encoding", coding))
    inner = Resumed(packed, reader_for(Framing("length", 9)))
    _, reader = Answering(Scrub((SECRET,)), must_read=True).answer(response, inner)

    came = reader.take(bytearray())
    while reader.has_more:
        came += reader.take(bytearray())

    assert body.startswith(came)
    assert len(body) - len(came) < 200  # which may begin a secret


async def test_others_have_their_turns_while_very_many_small_chunks_are_held() -> None:
    pieces = b'8\r\n{"of": "\r\n', b"1\r\nx\r\n" * (40 * MAX_CHUNKS), b'2\r\n"}\r\n0\r\n\r\n'
    source = Bytes(b"".join(pieces))

    (_, body), turns = await turns_during(settled(WholeTask((), CAPTURE, Spent()), source, CHUNKED))

    assert turns >= 40
    assert json.loads(body) == {"of": "x" * (40 * MAX_CHUNKS)}
