"""Carrying data out in names: queries to the resolver inside, to any other, over UDP, TCP and the C library."""

from __future__ import annotations

import socket
import struct
from functools import partial

from hostile.inside.attempt import PATIENCE_S, Outcomes, tried

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65, "ANY": 255}


def everything(names: list[str], servers: list[str]) -> dict[str, Outcomes]:
    """Ask for every name in every way. An outcome is "done", a response code, and the count of answers."""
    outcomes: Outcomes = {}
    for name in names:
        for kind, number in TYPES.items():
            outcomes[f"udp {kind} {name}"] = tried(partial(_udp, "127.0.0.1", name, number))
        outcomes[f"tcp A {name}"] = tried(partial(_tcp, "127.0.0.1", name, 1))
        outcomes[f"libc {name}"] = tried(partial(_libc, name))
    elsewhere = {
        f"{transport.__name__.strip('_')} {server}": tried(partial(transport, server, names[0], 1))
        for server in servers
        for transport in (_udp, _tcp)
    }
    return {"names": outcomes, "other_resolvers": elsewhere}


def _query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("latin-1").split(b".") if label)
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def _judged(answer: bytes) -> str:
    _, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", answer)
    return f"rcode {flags & 15} answers {count}"


def _udp(server: str, name: str, kind: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect((server, 53))
        sock.send(_query(name, kind))
        return _judged(sock.recv(4096))


def _tcp(server: str, name: str, kind: int) -> str:
    with socket.create_connection((server, 53), PATIENCE_S) as sock:
        query = _query(name, kind)
        sock.sendall(struct.pack("!H", len(query)) + query)
        answer = sock.recv(4096)
        return _judged(answer[2:]) if len(answer) > 14 else "closed"


def _libc(name: str) -> str:
    try:
        return f"found {socket.getaddrinfo(name, 443)[0][4][0]}"
    except (socket.gaierror, UnicodeError) as problem:
        raise OSError(None, "no such name") from problem
