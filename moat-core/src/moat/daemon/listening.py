"""Opens the listeners that serve runs by their token: on loopback for all of them, on one address for one run."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Sequence

from moat.api.errors import UsageError

LOOPBACK = "127.0.0.1"
BACKLOG = 1024


async def listening_again(port: int, others: Sequence[int], patience_s: float) -> socket.socket:
    """Return a listener on loopback, on port if that is free in time: the dead daemon's worker may still hold it."""
    deadline = time.monotonic() + patience_s
    while port and time.monotonic() < deadline:
        try:
            return listening((port,))
        except UsageError:
            await asyncio.sleep(0.05)
    return listening((port, *others))


def listening(ports: Sequence[int], address: str = LOOPBACK) -> socket.socket:
    """Return a TCP listener on address and the first of ports that is free; 0 is any.

    Raises UsageError when address is none, stands for every interface or is not this machine's, or no port is free.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{address!r} is no address to listen on", hint="give one address of this machine") from None
    if parsed.is_unspecified or parsed.is_multicast:
        raise UsageError(f"{address} stands for more than one interface", hint="give one address of this machine")
    for port in ports:
        sock = socket.socket(socket.AF_INET if parsed.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last daemon's connections may still fade
        try:
            sock.bind((address, port))
        except (OSError, OverflowError):  # a port that is none, out of a file that was changed
            sock.close()
            continue
        sock.listen(BACKLOG)
        return sock
    raise UsageError(f"no port on {address} can be listened on", hint="run: moat doctor")
