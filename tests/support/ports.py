"""A port that nobody has and that the kernel gives to nobody: below those of its own choice (`ip_local_port_range`)."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port of loopback that is free. Tests beside this one choose theirs by chance too."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(20_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue  # somebody has it
