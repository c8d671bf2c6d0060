from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.hello import MAX_HELLO_BYTES, Hello, HelloReader, is_without_http2
from moat.proxy.http1 import Malformed


def a_hello(name: str | None = "api.example.com", *protocols: str) -> bytes:
    """Return the first flight of a real client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read(data: bytes) -> Hello | None:
    return HelloReader().read(bytearray(data))


def in_records(hello: bytes, *sizes: int) -> bytes:
    """Return the same message in records of these sizes, the rest in a last one."""
    message, out = hello[5:], b""
    for size in (*sizes, len(message)):
        piece, message = message[:size], message[size:]
        out += b"\x16\x03\x01" + len(piece).to_bytes(2) + piece if piece else b""
    return out


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2) + len(data).to_bytes(2) + data


def made(*extensions: bytes, tail: bytes = b"") -> bytes:
    """Return a hello with these extensions."""
    listed = b"".join(extensions)
    body = (
        b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(listed).to_bytes(2) + listed + tail
    )
    message = b"\x01" + len(body).to_bytes(3) + body
    return in_records(b"\x16\x03\x01\x00\x00" + message)


HELLO = a_hello("api.example.com", "h2", "grpc-exp")
SNI = extension(0, b"\x00\x06\x00\x00\x03a.b")


@pytest.mark.parametrize(
    ("protocols", "is_only_for_http2"),
    [((), False), (("http/1.1",), False), (("h2", "http/1.1"), False), (("http/1.1", "h2"), False), (("h2",), True),
     (("grpc-exp", "h2"), True), (("acme-tls/1",), False)],
)  # fmt: skip
def test_only_who_offers_nothing_but_http2_is_served_http2(protocols: tuple[str, ...], is_only_for_http2: bool) -> None:
    hello = read(a_hello("api.example.com", *protocols))

    assert hello == Hello("api.example.com", protocols)
    assert hello.is_only_for_http2 is is_only_for_http2


@pytest.mark.parametrize(
    ("data", "is_without"),
    [(a_hello("a.example"), True), (a_hello("a.example", "http/1.1"), True), (HELLO, False),
     (a_hello("a.example")[:-1], False), (in_records(HELLO, 60), False), (in_records(a_hello("a.example"), 60), False),
     (b"", False), (b"GET / HTTP/1.1", False)],
    ids=["no ALPN", "http/1.1", "h2", "not all there", "in two records", "the same without h2", "nothing", "no TLS"],
)  # fmt: skip
def test_a_hello_that_never_says_h2_is_seen_at_a_glance(data: bytes, is_without: bool) -> None:
    assert is_without_http2(bytearray(data)) is is_without


def test_a_client_may_name_nobody() -> None:
    assert read(a_hello(None)) == Hello()


@given(st.lists(st.integers(1, 200), max_size=12), st.lists(st.integers(1, 400), max_size=12))
def test_however_a_hello_is_cut_into_records_and_packets_it_is_the_same(records: list[int], packets: list[int]) -> None:
    data, reader, buffer = in_records(HELLO, *records), HelloReader(), bytearray()
    found = None
    for size in (*packets, len(data)):
        assert found is None or not data
        buffer += data[:size]
        data = data[size:]
        found = reader.read(buffer) if found is None else found

    assert found == Hello("api.example.com", ("h2", "grpc-exp"))


def test_nothing_is_taken_off_the_buffer() -> None:
    buffer = bytearray(HELLO + b"more")

    assert HelloReader().read(buffer) is not None
    assert bytes(buffer) == HELLO + b"more"


def test_a_hello_of_32_kib_over_many_records_is_read() -> None:
    padded = made(SNI, extension(21, bytes(32_000)))
    message = padded[5:]

    found = read(in_records(b"\x16\x03\x01\x00\x00" + message, 16_000, 16_000))

    assert found == Hello("a.b")


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 60, len(HELLO) - 1])
def test_what_is_not_all_there_is_waited_for(count: int) -> None:
    assert read(HELLO[:count]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x00" + bytes(8),
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x17\x03\x03\x00\x01\x00",
        b"\x16\x02\x00\x00\x01\x01",
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00",
        made(SNI, SNI),
        made(extension(0, b"\x00\x06\x01\x00\x03a.b")),
        made(extension(0, b"\x00\x05\x00\x00\x02\xff\xff")),
        made(extension(0, b"\x00\x0c\x00\x00\x03a.b\x00\x00\x03b.b")),
        made(extension(0, b"\x00\x06\x00\x00\x09a.b")),
        made(extension(0, b"\x00\x03\x00\x00\x00")),
        made(extension(16, b"\x00\x03\x02h2\x00")),
        made(extension(16, b"\x00\x00")),
        made(extension(16, b"\x00\x01\x00")),
        made(extension(16, b"\x00\x03\x09h2")),
        made(SNI, tail=b"x"),
    ],
    ids=["no TLS", "an empty record", "a record too long", "another message", "data", "SSL 2", "a length of 16 MiB",
         "two names", "a name of another kind", "a name beyond ASCII", "two names in one", "a name cut off", "no name",
         "ALPN with a tail", "ALPN of nothing", "an empty protocol", "ALPN cut off", "a tail"],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_no_hello(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


def test_an_endless_hello_is_given_up() -> None:
    reader, buffer = HelloReader(), bytearray(b"\x16\x03\x01\x00\x04\x01\x00\xff\xff")
    while len(buffer) < MAX_HELLO_BYTES - 6:
        buffer += b"\x16\x03\x01\x00\x01\x00"
        assert reader.read(buffer) is None
    buffer += b"\x16\x03\x01\x00\x01\x00" * 2

    with pytest.raises(Malformed, match="too long"):
        reader.read(buffer)


@given(st.binary(max_size=400))
def test_garbage_is_malformed_or_incomplete_and_nothing_else(data: bytes) -> None:
    for prefix in (b"", HELLO[:9], HELLO[:60]):
        try:
            found = read(prefix + data)
        except Malformed:
            continue
        assert found is None or isinstance(found, Hello)
