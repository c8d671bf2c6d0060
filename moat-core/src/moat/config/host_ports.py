"""Ports of this machine that a run is to reach: `PORT` and `NAME=PORT` read and checked. Text only.

5432 ─▶ host.moat.internal:5432            db=5432 ─▶ db.host.moat.internal:5432 as well
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from moat.api.errors import UsageError
from moat.api.runs import HostPort

MOST = 32  # what a door can open besides its own; see runtimes/places.py
NAME = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OF_THE_DOOR = (53, 19080)  # in every run these lead to its resolver and to the proxy
_SHAPE = "write --host-port 5432, or --host-port db=5432 for db.host.moat.internal"


def parse_host_port(text: str) -> HostPort:
    """Return the port that an option's text names. Raises UsageError."""
    name, equals, port = text.rpartition("=")
    if (equals and re.fullmatch(NAME, name) is None) or re.fullmatch(r"[0-9]{1,5}", port) is None:
        raise UsageError(f"--host-port {text!r} is no port of this machine", hint=_SHAPE)
    try:
        return checked_host_port(int(port), name)
    except ValueError as refused:
        raise UsageError(f"--host-port {text}: {refused}", hint=_SHAPE) from None


def checked_host_port(port: int, name: str = "") -> HostPort:
    """Return a port with its name. Raises ValueError for one that cannot be reached from inside."""
    if not 0 < port < 65_536:
        raise ValueError(f"{port} is no port")
    if port in _OF_THE_DOOR:
        raise ValueError(f"port {port} is the run's own: there its resolver (53) or the proxy (19080) listens")
    return HostPort(port, name)


def host_ports_of(ports: Mapping[str, int]) -> tuple[HostPort, ...]:
    """Return the ports of a mapping, whose keys are names, or the port again where there is none. Raises ValueError."""
    return tuple(checked_host_port(port, "" if name == str(port) else name) for name, port in ports.items())
