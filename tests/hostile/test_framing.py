"""Two readers of one stream of bytes must not be able to disagree: what is doubtful is refused, and nothing goes on."""

from __future__ import annotations

import pytest

from hostile.conftest import SECRET, Bench
from hostile.sandbox import statuses
from hostile.test_authority import API, get

HOST = "www.example.com"
POST = f"POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n"
SMUGGLED = f"GET http://{HOST}/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"

LENGTHS = {
    "length and chunked": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity and chunked": "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding before a tab": "Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n",
    "a space before the colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "an underscore": "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length with a sign": "Content-Length: +5\r\n\r\nhello",
    "a negative length": "Content-Length: -1\r\n\r\n",
    "two lengths in one": "Content-Length: 5, 5\r\n\r\nhello",
    "two different lengths": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "the same length twice": "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a hexadecimal length": "Content-Length: 0x5\r\n\r\nhello",
    "a length with a space": "Content-Length: 5 5\r\n\r\nhello",
    "an empty length": "Content-Length:\r\n\r\nhello",
    "an endless length": "Content-Length: 99999999999999999999999\r\n\r\nhello",
}
HEADS = {
    "a bare line feed": f"GET http://{HOST}/ HTTP/1.1\nHost: {HOST}\n\n",
    "a line feed in a field": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA: b\nC: d\r\n\r\n",
    "a carriage return in a field": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA: b\rC: d\r\n\r\n",
    "a folded field": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA: b\r\n c\r\n\r\n",
    "a leading space": f"GET http://{HOST}/ HTTP/1.1\r\n Host: {HOST}\r\n\r\n",
    "no colon": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nnothing\r\n\r\n",
    "an empty name": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n: nothing\r\n\r\n",
    "a space in a name": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA B: c\r\n\r\n",
    "an underscore in a name": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nContent_Length: 5\r\n\r\n",
    "a NUL in a name": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA\0: c\r\n\r\n",
    "a NUL in a value": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA: \0\r\n\r\n",
    "a bell in a value": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nA: \x07\r\n\r\n",
    "two spaces in the first line": f"GET  http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "a tab in the first line": f"GET\thttp://{HOST}/\tHTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "a space in the target": f"GET http://{HOST}/a b HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "another version": f"GET http://{HOST}/ HTTP/2.0\r\nHost: {HOST}\r\n\r\n",
    "no version": f"GET http://{HOST}/\r\n\r\n",
    "HTTP/2's preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "chunked in HTTP/1.0": f"POST http://{HOST}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
CHUNKS = {
    "an extension": "5;a=b\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": "5\nhello\r\n0\r\n\r\n",
    "no size": "\r\nhello\r\n0\r\n\r\n",
    "a sign": "+5\r\nhello\r\n0\r\n\r\n",
    "0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "a space": "5 \r\nhello\r\n0\r\n\r\n",
    "too long a chunk": "5\r\nhello!\r\n0\r\n\r\n",
    "an endless size": "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a trailer without a colon": "5\r\nhello\r\n0\r\nbroken\r\n\r\n",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_that_is_doubtful_ends_the_connection(bench: Bench, name: str) -> None:
    came = bench.free.exchange((POST + LENGTHS[name] + SMUGGLED).encode("latin-1"), close=True)

    assert statuses(came) == [400]
    assert bench.internet.connections == []


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_doubtful_ends_the_connection(bench: Bench, name: str) -> None:
    came = bench.free.exchange((HEADS[name] + SMUGGLED).encode("latin-1"), close=True)

    assert statuses(came) == [400]
    assert bench.internet.connections == []


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_that_is_doubtful_ends_both_connections(bench: Bench, name: str) -> None:
    text = POST + "Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[name] + SMUGGLED

    came = bench.free.exchange(text.encode("latin-1"), close=True)

    assert statuses(came) == [400]
    assert b"smuggled" not in bench.internet.bytes_seen
    assert CHUNKS[name].encode() not in bench.internet.bytes_seen


def test_what_follows_an_early_answer_is_not_a_request(bench: Bench) -> None:
    head = f"POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"

    came = bench.free.exchange(head.encode(), SMUGGLED.encode(), close=True)

    assert statuses(came) == [200]
    assert bench.internet.bytes_seen.count(b"HTTP/1.1\r\n") == 1
    assert f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() not in bench.internet.bytes_seen


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_ones(bench: Bench, scheme: str) -> None:
    def ask(path: str) -> bytes:
        if scheme == "http":
            return bench.free.exchange(get(HOST, f"http://{HOST}{path}"))
        return bench.free.in_tunnel(f"{HOST}:443", get(HOST, path)).came

    ask("/first")
    bench.internet.say_unasked(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nunasked\n")

    assert [ask("/next").endswith(b"hello\n"), ask("/next").endswith(b"hello\n")] == [True, True]


def test_requests_in_one_tunnel_are_judged_one_by_one(bench: Bench) -> None:
    pipelined = get("api.github.com", "/first") + get("evil.test", "/second") + get("api.github.com", "/third")

    tunnel = bench.free.in_tunnel(API, pipelined, answers=2)

    assert statuses(tunnel.came)[:2] == [200, 421]
    assert b"GET /first" in bench.internet.bytes_seen
    assert b"/second" not in bench.internet.bytes_seen
    assert b"evil.test" not in bench.internet.bytes_seen


def test_a_body_cannot_pass_for_a_request_with_a_credential(bench: Bench) -> None:
    inner = get("api.github.com", "/inner")
    outer = f"POST /outer HTTP/1.1\r\nHost: api.github.com\r\nContent-Length: {len(inner)}\r\n\r\n".encode()

    tunnel = bench.free.in_tunnel(API, outer + inner)

    assert statuses(tunnel.came)[0] == 200
    assert bench.internet.bytes_seen.count(SECRET.encode()) == 1


@pytest.mark.parametrize("method", ["TRACE", "trace", "TRACK"])
def test_a_method_that_shows_the_credential_is_refused(bench: Bench, method: str) -> None:
    tunnel = bench.free.in_tunnel(API, f"{method} / HTTP/1.1\r\nHost: api.github.com\r\n\r\n".encode())

    assert statuses(tunnel.came) == [405]
    assert bench.internet.connections == []


@pytest.mark.parametrize("target", ["*", "/_moat/x#fragment", "api.github.com:443", "user"])
def test_a_target_that_is_no_path_is_refused_in_a_tunnel(bench: Bench, target: str) -> None:
    tunnel = bench.free.in_tunnel(API, f"OPTIONS {target} HTTP/1.1\r\nHost: api.github.com\r\n\r\n".encode())

    assert statuses(tunnel.came) == [400]
    assert bench.internet.connections == []


@pytest.mark.parametrize("wanted", ["websocket", "h2c", "HTTP/2.0", "notwebsocket"])
def test_an_upgrade_is_judged_before_it_is_offered(bench: Bench, wanted: str) -> None:
    upgrade = ("Connection: Upgrade", f"Upgrade: {wanted}", "HTTP2-Settings: AAMAAABkAAQAAP__")

    came = bench.strict.exchange(get("evil.test", "http://evil.test/", *upgrade))
    bench.free.exchange(get(HOST, f"http://{HOST}/", *upgrade))

    assert statuses(came) == [403]
    assert (b"h2c" in bench.internet.bytes_seen, b"HTTP/2.0" in bench.internet.bytes_seen) == (False, False)
    assert b"evil" not in bench.internet.bytes_seen


def test_headers_for_one_hop_do_not_go_on(bench: Bench) -> None:
    extra = (
        "Connection: close, x-dropped",
        "X-Dropped: a",
        "Proxy-Connection: keep-alive",
        "TE: gzip",
        "Keep-Alive: 5",
    )

    bench.free.exchange(get(HOST, f"http://{HOST}/", *extra))

    seen = bench.internet.bytes_seen.lower()
    assert b"host: www.example.com" in seen
    assert [name for name in (b"x-dropped", b"proxy-connection", b"gzip", b"keep-alive") if name in seen] == []
