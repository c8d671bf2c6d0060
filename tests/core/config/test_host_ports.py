from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.api.runs import HostPort
from moat.config.host_ports import checked_host_port, host_ports_of, parse_host_port


@pytest.mark.parametrize(
    ("text", "port", "inside"),
    [
        ("5432", HostPort(5432), "host.moat.internal:5432"),
        ("db=5432", HostPort(5432, "db"), "db.host.moat.internal:5432"),
        ("my-db2=1", HostPort(1, "my-db2"), "my-db2.host.moat.internal:1"),
    ],
)
def test_a_port_is_read_with_its_name(text: str, port: HostPort, inside: str) -> None:
    assert parse_host_port(text) == port
    assert str(port) == inside


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "65536", "123456", "-1", "=5432", "db=", "Db=1", "-a=1", "a-=1", "a.b=1", "5=5", "a=b=1", "1 "],
)
def test_what_is_no_port_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="--host-port") as caught:
        parse_host_port(text)

    assert caught.value.hint.startswith("write --host-port 5432")


@pytest.mark.parametrize("port", [53, 19080])
def test_the_doors_own_ports_are_no_others(port: int) -> None:
    with pytest.raises(ValueError, match="the run's own"):
        checked_host_port(port)


def test_a_port_that_is_named_like_itself_has_no_name() -> None:
    assert host_ports_of({"5432": 5432, "db": 5432}) == (HostPort(5432), HostPort(5432, "db"))
