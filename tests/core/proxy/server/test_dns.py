from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.server.dns import DatagramResolver, answer, serve_stream

from core.proxy.server.pairs import plain_pair

KNOWN = {"api.example.com": "127.107.0.7"}


def query(name: str = "api.example.com", kind: int = 1, flags: int = 0x0100, group: int = 1, count: int = 1) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 0xBEEF, flags, count, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, group)


def ask(message: bytes) -> tuple[int, int, bytes]:
    """Return code, count of answers and the last four bytes."""
    reply = answer(message, KNOWN.get)
    assert reply is not None
    number, flags, _, answers, *_ = struct.unpack_from("!6H", reply)
    assert number == 0xBEEF
    assert flags & 0x8000
    return flags & 0xF, answers, reply[-4:]


def test_a_known_name_has_its_address_in_any_case() -> None:
    assert ask(query()) == (0, 1, bytes((127, 107, 0, 7)))
    assert ask(query("API.Example.COM")) == (0, 1, bytes((127, 107, 0, 7)))


@pytest.mark.parametrize("kind", [28, 65, 16, 5, 15, 12], ids=["AAAA", "HTTPS", "TXT", "CNAME", "MX", "PTR"])
def test_other_types_of_a_known_name_are_empty(kind: int) -> None:
    assert ask(query(kind=kind))[:2] == (0, 0)


@pytest.mark.parametrize(
    "name", ["secret.attacker.example", "1.2.3.4", "xn--a.example", "-a.example", "7.0.107.127.in-addr.arpa"]
)
def test_everything_else_does_not_exist(name: str) -> None:
    assert ask(query(name))[:2] == (3, 0)


def test_other_classes_do_not_exist() -> None:
    assert ask(query(group=3))[0] == 3


def test_updates_are_not_implemented_and_several_questions_malformed() -> None:
    assert ask(query(flags=0x2800))[0] == 4
    assert ask(query(count=2))[0] == 1
    assert ask(query()[:-3])[0] == 1
    assert ask(query()[:12] + b"\xc0\x0c\0\x01\0\x01")[0] == 1


def test_answers_and_fragments_are_never_answered() -> None:
    assert answer(query(flags=0x8100), KNOWN.get) is None
    assert answer(b"short", KNOWN.get) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_answered_or_not_but_never_fail(data: bytes) -> None:
    reply = answer(data, KNOWN.get)

    assert reply is None or len(reply) >= 12


async def test_a_datagram_is_answered_though_the_socket_blocks() -> None:
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.bind(("127.0.0.1", 0))
    ours.setblocking(True)  # what another holder of the socket may do at any time
    address = ours.getsockname()
    resolver = DatagramResolver(ours, KNOWN.get)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(query(), address)
        reply = await asyncio.to_thread(client.recv, 512)
    resolver.close()

    assert reply[-4:] == bytes((127, 107, 0, 7))


async def test_a_stream_carries_several_queries() -> None:
    client, server = await plain_pair()
    framed = struct.pack("!H", len(query())) + query()
    client.write(framed + framed)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_stream(server, KNOWN.get))
        while len(client.buffer) < 2 * (len(query()) + 16 + 2):
            assert await client.more()
        client.close()

    assert client.buffer.count(bytes((127, 107, 0, 7))) == 2
