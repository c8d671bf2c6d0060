"""Which addresses are this worker's own, so that no run is led back to it: by a pin, a range that was opened, a proxy.

No header marks what has passed here: it would tell every upstream that moat is in use.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from moat.net.addresses import IPAddress, unwrapped
from moat.proxy.server.race import Target

SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14


def in_our_namespace(sock: socket.socket) -> bool:
    """Whether a socket stands in this process's network. Those of sealed runs have the same numbers in another one."""
    with contextlib.suppress(OSError), socket.socket() as ours:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) == ours.getsockopt(
            socket.SOL_SOCKET, SO_NETNS_COOKIE, 8
        )
    return True


def leads_to(target: Target, listener: Target) -> bool:
    """Whether a connection to target arrives at listener. Nothing is sent."""
    if target[1] != listener[1]:
        return False
    meant, heard = _plain(target[0]), _plain(listener[0])
    return meant == heard or meant.is_unspecified or (heard.is_unspecified and is_here(meant))


def is_here(address: IPAddress) -> bool:
    """Whether an address is this machine's.

    The kernel knows: to an address of its own it talks from that same address (RFC 6724 §5, rule 1). Nothing is sent.
    """
    if address.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(address), 9))
        except OSError:
            return False  # no way there at all: the dial will say so
        return ipaddress.ip_address(sock.getsockname()[0]) == address


def _plain(text: str) -> IPAddress:
    address = ipaddress.ip_address(text)
    carried = unwrapped(address)
    return carried[0] if carried else address
