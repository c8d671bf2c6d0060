"""Stealing the door: binding its ports in every way, so that a later connection would come to the thief."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path

from hostile.inside.attempt import Outcomes, tried

TCP_PORTS = {19080: ("127.0.0.1",), 80: ("127.0.0.1", "127.0.0.2", "127.107.3.4"), 443: ("127.0.0.1", "127.107.3.4"),
             53: ("127.0.0.1",)}  # fmt: skip
EVERYWHERE = ("0.0.0.0", "::", "::ffff:127.0.0.1")
SO_REUSEPORT_ALL = (0, 1, 2, 3)
IP_TRANSPARENT, IP_FREEBIND, SO_BINDTODEVICE, SO_MARK = 19, 15, 25, 36


def everything(ports: list[int]) -> dict[str, Outcomes]:
    """Try every port of the door, TCP and (53) UDP, with every combination of the options that allow sharing."""
    outcomes: Outcomes = {}
    for port in ports:
        for address in (*TCP_PORTS[port], *EVERYWHERE):
            for options in SO_REUSEPORT_ALL:
                name = f"tcp {address} {port} options {options}"
                outcomes[name] = tried(partial(_steal, socket.SOCK_STREAM, address, port, options))
                if port == 53:
                    name = name.replace("tcp", "udp")
                    outcomes[name] = tried(partial(_steal, socket.SOCK_DGRAM, address, port, options))
    return {"door": outcomes, "privileged_options": _options(), "descriptors": _descriptors()}


def _steal(kind: socket.SocketKind, address: str, port: int, options: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        if options & 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options & 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.bind((address, port))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        return "stolen"


def _options() -> Outcomes:
    outcomes = {}
    for name, level, option in (
        ("IP_TRANSPARENT", socket.IPPROTO_IP, IP_TRANSPARENT),
        ("SO_MARK", socket.SOL_SOCKET, SO_MARK),
        ("SO_RCVBUFFORCE", socket.SOL_SOCKET, 33),
        ("SO_DEBUG", socket.SOL_SOCKET, socket.SO_DEBUG),
    ):
        with socket.socket() as sock:
            outcomes[name] = tried(partial(sock.setsockopt, level, option, 1))
    return outcomes


def _descriptors() -> Outcomes:
    """Say what this program was born with; main.py opens nothing before it asks."""
    found = {}
    for number in range(256):
        with contextlib.suppress(OSError):
            found[str(number)] = str(Path(f"/proc/self/fd/{number}").readlink())
    return found
