"""ClientHellos with more in them than a name to read: encrypted ones, GREASE, padding. The outer name counts."""

from __future__ import annotations

import os
import ssl

import pytest

from hostile.conftest import Bench
from hostile.sandbox import statuses

HOST = "api.github.com"
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
SERVER_HELLO, ALERT = 22, 21  # the records that answer a hello (RFC 8446 §5.1)


def vector(width: int, data: bytes) -> bytes:
    """Return data after its length."""
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def ech(kind: int = 0) -> bytes:
    """Return encrypted_client_hello (RFC 9849 §5): outer, as browsers send it also without a key to encrypt with."""
    sealed = b"\x00\x01\x00\x01" + os.urandom(1) + vector(2, os.urandom(32)) + vector(2, os.urandom(208))
    return extension(0xFE0D, bytes([kind]) + (sealed if kind == 0 else b""))


def name(host: str) -> bytes:
    """Return server_name (RFC 6066 §3)."""
    return extension(0, vector(2, b"\0" + vector(2, host.encode())))


def hello(host: str | None, *more: bytes) -> bytes:
    """Return OpenSSL's own hello, without its padding, with further extensions at its end."""
    out = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    body = out.read()[9:]
    at = 34
    for width in (1, 2, 1):  # session, cipher suites, compression
        at += width + int.from_bytes(body[at : at + width], "big")
    body = body[:at] + vector(2, unpadded(body[at + 2 :]) + b"".join(more))
    return b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, body))


def unpadded(extensions: bytes) -> bytes:
    """Leave out padding (RFC 7685), of which there may be one only."""
    kept, at = b"", 0
    while at < len(extensions):
        end = at + 4 + int.from_bytes(extensions[at + 2 : at + 4], "big")
        kept += b"" if extensions[at : at + 2] == b"\0\x15" else extensions[at:end]
        at = end
    return kept


EXTRAS = {
    "nothing more": b"",
    "GREASE ECH": ech(),
    "an inner ECH": ech(1),
    "ECH of nonsense": extension(0xFE0D, os.urandom(100)),
    "GREASE": extension(0x0A0A, b"") + extension(0xFAFA, b"\0"),
    "padding": extension(21, bytes(400)),
    "ECH and padding to the end of a record": ech() + extension(21, bytes(15_000)),
    "outer extensions": extension(0xFD00, vector(1, b"\0\0")),  # names a decoy: server_name is taken from elsewhere
}
each = pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)


def answered(came: bytes) -> int:
    """Return the kind of the record that answered a hello in a tunnel."""
    assert statuses(came) == [200]
    return came.partition(b"\r\n\r\n")[2][0]


@each
def test_what_else_a_hello_holds_keeps_nobody_out(bench: Bench, extra: bytes) -> None:
    assert answered(bench.free.exchange(CONNECT, hello(HOST, extra))) == SERVER_HELLO
    assert bench.internet.connections == []


@each
@pytest.mark.parametrize("outer", ["cloudflare-ech.com", "www.example.com", "xapi.github.com"])
def test_an_outer_name_that_is_not_the_tunnels_ends_the_handshake(bench: Bench, extra: bytes, outer: str) -> None:
    assert answered(bench.free.exchange(CONNECT, hello(outer, extra))) == ALERT
    assert bench.internet.packets == []


@pytest.mark.parametrize("extra", [name(HOST), name("evil.test")], ids=["the same", "another"])
def test_a_name_that_comes_twice_ends_the_handshake(bench: Bench, extra: bytes) -> None:
    came = bench.free.exchange(CONNECT, hello(HOST, extra))

    assert answered(came) == ALERT
    assert bench.internet.packets == []


def test_behind_an_address_the_outer_name_counts_too(bench: Bench) -> None:
    address = bench.free.ask(do="resolve", name="www.example.com")["address"]

    came = [bench.free.exchange(hello(outer, ech()), to=(address, 443))[:1] for outer in (HOST, "www.example.com")]

    assert came == [bytes([ALERT]), bytes([SERVER_HELLO])]
    assert bench.internet.packets == []
