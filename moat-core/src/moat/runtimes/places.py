"""The sockets of a door beyond its own: ports and unix sockets inside a run that lead to its endpoints.

    endpoints ─▶ places_of ─▶ rows (name, kind, host, port) ─▶ gate opens them ─▶ door: announced, check ─▶ worker
                                └─▶ mounts_of: a unix socket is made in the door's folder and shown at its path

They are known when the run begins, and stay: the run as it is now says what is behind them, if anything.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from moat.api.container import Mount
from moat.api.errors import MoatError, SandboxFailed

if TYPE_CHECKING:  # the daemon asks what endpoints need; a run's command line only shows the result
    from moat.api.endpoints import Where

Row: TypeAlias = tuple[str, str, str, int]  # as in the gate: name, kind, host or file, port

MAX_PLACES = 32
EVERYWHERE = "0.0.0.0"  # noqa: S104 - all of the run's own loopback; there is no other interface
_DOOR_PORTS = frozenset((53, 80, 443, 19080))  # of the door's own sockets, which lead to endpoints too


def places_of(wheres: Iterable[Where]) -> tuple[Row, ...]:
    """Return the sockets that endpoints need. Raises MoatError when they are too many."""
    from moat.api.endpoints import Tcp, UnixPath

    found: dict[str, Row] = {}
    for where in wheres:
        if isinstance(where, Tcp) and where.port not in _DOOR_PORTS:
            found[f"tcp:{where.port}"] = (f"tcp:{where.port}", "tcp", EVERYWHERE, where.port)
        elif isinstance(where, UnixPath):
            found[f"unix:{where.path}"] = (f"unix:{where.path}", "unix", file_of(where.path), 0)
    if len(found) > MAX_PLACES:
        raise MoatError(f"endpoints want {len(found)} ports and sockets; a run has {MAX_PLACES} at most")
    return tuple(found[name] for name in sorted(found))


def file_of(path: str) -> str:
    """Return the name of a socket in the door's folder: short, whatever its path inside is."""
    import hashlib

    return f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.sock"


def mounts_of(folder: Path, places: Iterable[Row]) -> tuple[Mount, ...]:
    """Return what shows the unix sockets inside. folder: the door's, on the host."""
    unix = ((name, file) for name, kind, file, _ in places if kind == "unix")
    return tuple(Mount(folder / file, name.partition(":")[2], read_only=True) for name, file in unix)


def announced(rows: list[Any]) -> tuple[Row, ...]:
    """Return the sockets that a gate announced beyond the door's own. Raises SandboxFailed for what are none."""
    try:
        expected = places_of([_where(str(row["name"])) for row in rows])
    except (MoatError, TypeError, KeyError, ValueError):
        raise SandboxFailed("the gate announced sockets that are no door") from None
    if rows != [dict(zip(("name", "kind", "host", "port"), row, strict=True)) for row in expected]:
        raise SandboxFailed("the gate announced sockets that are no door")
    return expected


def check_unix(sock: socket.socket, name: str) -> None:
    """Refuse a socket that is no unix socket waiting for clients. Raises SandboxFailed."""
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise SandboxFailed(f"the gate's {name} is no unix socket")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 1:
        raise SandboxFailed(f"the gate's {name} is not waiting for clients")


def _where(name: str) -> Where:
    from moat.api.endpoints import Tcp, UnixPath

    kind, _, rest = name.partition(":")
    return UnixPath(rest) if kind == "unix" else Tcp("any.name", int(rest))
