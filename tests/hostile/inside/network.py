"""Ways out over a network: every protocol, every address, every family of sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from functools import partial

from hostile.inside.attempt import PATIENCE_S, Outcomes, tried, tried_apart

PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101", "255.255.255.255")
PRIVATE = ("10.0.0.1", "172.17.0.1", "172.17.0.2", "192.168.0.1", "100.64.0.1", "169.254.169.254", "100.100.100.200",
           "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd77::1", "fe80::1", "ff02::1", "224.0.0.1",
           "198.51.100.1")  # fmt: skip
PORTS = (22, 53, 80, 443, 853, 2375, 3128, 8080, 19080)
ALLOWED_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK
SCTP, UDPLITE, MPTCP, DCCP = 132, 136, 262, 33


def everything(targets: dict[str, list[list[object]]]) -> dict[str, Outcomes]:
    """Try all of it. targets: "tcp" and "udp", lists of [address, port] on the host where somebody listens."""
    lures = [(str(address), int(str(port))) for address, port in targets["tcp"]]
    datagrams = [(str(address), int(str(port))) for address, port in targets["udp"]]
    far = [(address, port) for address in (*PUBLIC, *PRIVATE) for port in PORTS]
    return {
        "tcp": {f"{where}": tried(partial(_connect, *where)) for where in (*far, *lures)},
        "udp": {f"{where}": tried(partial(_send, *where)) for where in (*far, *datagrams)},
        "raw": _raw([*PUBLIC, *PRIVATE, *dict.fromkeys(address for address, _ in lures)]),
        "families": _families(),
        "fast_open": {f"{where}": tried(partial(_fast_open, *where)) for where in lures},
    }


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _connect(address: str, port: int) -> str:
    with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect((address, port))
        sock.sendall(b"out\n")
        return "connected"


def _send(address: str, port: int) -> str:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"out", (address, port))
        return "sent"


def _fast_open(address: str, port: int) -> str:
    with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.sendto(b"out", 0x20000000, (address, port))  # MSG_FASTOPEN: data goes with the first packet
        sock.recv(1)
        return "sent"


def _raw(addresses: Sequence[str]) -> Outcomes:
    outcomes = {f"ping {address}": tried(partial(_ping, address)) for address in addresses}
    for kind in (socket.SOCK_RAW, socket.SOCK_SEQPACKET, socket.SOCK_DCCP if hasattr(socket, "SOCK_DCCP") else 6):
        for protocol in (1, 2, 6, 17, 41, 47, 58, 89, SCTP, UDPLITE, 255):
            for family in (socket.AF_INET, socket.AF_INET6):
                name = f"{family.name} kind {int(kind)} protocol {protocol}"
                outcomes[name] = tried(partial(_open, family, int(kind), protocol))
    outcomes["sctp stream"] = tried(partial(_open, socket.AF_INET, socket.SOCK_STREAM, SCTP))
    outcomes["dccp"] = tried(partial(_open, socket.AF_INET, 6, DCCP))
    return outcomes


def _ping(address: str) -> str:
    six = ":" in address
    protocol = 58 if six else 1
    with socket.socket(_family(address), socket.SOCK_DGRAM, protocol) as sock:
        sock.sendto(struct.pack("!BBHHH", 128 if six else 8, 0, 0, 1, 1) + b"out", (address, 0))
        return "sent"


def _families() -> Outcomes:
    outcomes: Outcomes = {}
    for family in range(64):
        if family not in ALLOWED_FAMILIES:
            for kind in (1, 2, 3, 5):
                outcomes[f"family {family} kind {kind}"] = tried_apart(partial(_open, family, kind, 0))
    for protocol in range(1, 25):  # 0 is NETLINK_ROUTE
        outcomes[f"netlink {protocol}"] = tried_apart(partial(_open, 16, socket.SOCK_RAW, protocol))
    return outcomes


def _open(family: int, kind: int, protocol: int) -> str:
    socket.socket(family, kind, protocol).close()
    return "opened"
