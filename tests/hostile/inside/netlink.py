"""Changing the network through the one netlink protocol there is, NETLINK_ROUTE; and what the network looks like."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from functools import partial
from pathlib import Path

from hostile.inside.attempt import Outcomes, tried

NEW_LINK, NEW_ADDRESS, NEW_ROUTE, NEW_RULE = 16, 20, 24, 32
REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400 | 0x200
SIOCADDRT, SIOCSIFADDR, SIOCSIFFLAGS, SIOCBRADDBR = 0x890B, 0x8916, 0x8914, 0x89A0


def everything() -> dict[str, Outcomes]:
    """Try to change it, and describe it."""
    return {
        "netlink": {
            "add a link": tried(partial(_ask, NEW_LINK, struct.pack("BxHiII", 0, 0, 0, 0, 0) + _attribute(3, b"d0\0"))),
            "set a link up or down": tried(partial(_ask, NEW_LINK, struct.pack("BxHiII", 0, 0, 1, 0, 1))),
            "add an address": tried(
                partial(_ask, NEW_ADDRESS, struct.pack("BBBBi", 2, 8, 0, 0, 1) + _attribute(2, b"\x0a\0\0\1"))
            ),
            "add a route": tried(
                partial(_ask, NEW_ROUTE, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 3, 253, 1, 0) + _index(4, 1))
            ),
            "add a rule": tried(partial(_ask, NEW_RULE, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0))),
            "route by ioctl": tried(partial(_ioctl, SIOCADDRT, bytes(120))),
            "address by ioctl": tried(partial(_ioctl, SIOCSIFADDR, struct.pack("16sHHI16x", b"lo", 2, 0, 0x0100000A))),
            "flags by ioctl": tried(partial(_ioctl, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", 0))),
            "a bridge by ioctl": tried(partial(_ioctl, SIOCBRADDBR, b"br0\0")),
            "a tunnel device": tried(partial(os.open, "/dev/net/tun", os.O_RDWR)),
        },
        "view": {
            "interfaces": " ".join(sorted(name for _, name in socket.if_nameindex())),
            "routes": " ".join(line.split()[0] for line in _lines("/proc/net/route")[1:]),
            "routes6": " ".join(
                line.split()[-1] for line in _lines("/proc/net/ipv6_route") if line.split()[-1] != "lo"
            ),
            "resolvers": " ".join(line.split()[1] for line in _lines("/etc/resolv.conf") if line.startswith("names")),
        },
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _index(kind: int, index: int) -> bytes:
    return _attribute(kind, struct.pack("i", index))


def _ask(kind: int, body: bytes) -> str:
    with socket.socket(16, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(1)
        sock.sendto(struct.pack("IHHII", 16 + len(body), kind, REQUEST_ACK_CREATE, 1, 0) + body, (0, 0))
        answer = sock.recv(65_536)
    _, answered, _, _, _, code = struct.unpack_from("IHHIIi", answer)
    if answered == 2 and code < 0:
        raise OSError(-code, os.strerror(-code))
    return "changed"


def _ioctl(request: int, argument: bytes) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, bytearray(argument))
    return "changed"
