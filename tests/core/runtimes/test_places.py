from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from moat.api.container import Mount
from moat.api.endpoints import ProxyPath, Tcp, UnixPath, Where
from moat.api.errors import MoatError, SandboxFailed
from moat.runtimes.places import MAX_PLACES, announced, check_unix, file_of, mounts_of, places_of

PATH = "/run/db/.s.PGSQL.5432"
ROWS = (
    ("tcp:5432", "tcp", "0.0.0.0", 5432),
    (f"unix:{PATH}", "unix", file_of(PATH), 0),
)


def as_announced(*rows: tuple[str, str, str, int]) -> list[dict[str, Any]]:
    return [dict(zip(("name", "kind", "host", "port"), row, strict=True)) for row in rows]


def test_each_port_and_socket_is_opened_once_and_those_of_the_door_are_there() -> None:
    ports = [Tcp("b.internal", 5432), Tcp("a.internal", 5432), Tcp("c.internal", 443), Tcp("d.internal", 80, tls=False)]
    wheres: list[Where] = [ProxyPath("/_moat/a/"), *ports, UnixPath(PATH), UnixPath(PATH)]

    assert places_of(wheres) == ROWS


def test_too_many_are_refused() -> None:
    with pytest.raises(MoatError, match=str(MAX_PLACES)):
        places_of(Tcp("a.internal", 10_000 + number) for number in range(MAX_PLACES + 1))


def test_a_socket_is_shown_at_its_path_and_lies_in_the_doors_folder() -> None:
    folder = Path("/doors/run_1")

    assert mounts_of(folder, ROWS) == (Mount(folder / file_of(PATH), PATH, read_only=True),)
    assert len(file_of("/" + "x/" * 50)) < 24
    assert file_of(PATH) != file_of("/run/other.sock")


def test_what_a_gate_announces_is_what_endpoints_can_need() -> None:
    assert announced(as_announced(*ROWS)) == ROWS
    assert announced([]) == ()


@pytest.mark.parametrize(
    "rows",
    [
        as_announced(("proxy", "tcp", "127.0.0.1", 81)),
        as_announced(("tcp:22", "tcp", "0.0.0.0", 23)),
        as_announced(("tcp:22", "udp", "0.0.0.0", 22)),
        as_announced(("tcp:443", "tcp", "0.0.0.0", 443)),
        as_announced(("tcp:19080", "tcp", "127.0.0.1", 19080)),
        as_announced((f"unix:{PATH}", "unix", "../other/door.sock", 0)),
        as_announced((f"unix:{PATH}", "unix", "door.sock", 0)),
        as_announced(ROWS[1], ROWS[0]),
        as_announced(ROWS[0], ROWS[0]),
        [{"name": "tcp:5432"}],
        [{}],
        ["tcp:5432"],
        [None],
    ],
    ids=range(13),
)
def test_anything_else_is_no_door(rows: list[Any]) -> None:
    with pytest.raises(SandboxFailed, match="no door"):
        announced(rows)


def test_only_a_unix_socket_that_waits_for_clients_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as good, socket.socket(socket.AF_UNIX) as idle, socket.socket() as other:
        good.bind(str(tmp_path / "s.sock"))
        good.listen()
        other.bind(("127.0.0.1", 0))
        other.listen()
        check_unix(good, "unix:/x/y")
        for sock, word in ((idle, "waiting"), (other, "no unix socket")):
            with pytest.raises(SandboxFailed, match=word):
                check_unix(sock, "unix:/x/y")
