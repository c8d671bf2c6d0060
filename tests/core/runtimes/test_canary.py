from __future__ import annotations

import socket

import pytest
from moat.runtimes.canary import Canary, host_addresses


def test_every_family_of_loopback_has_a_listener() -> None:
    with Canary() as canary:
        hosts = {host for host, _ in canary.addresses}

    assert "127.0.0.1" in hosts
    assert hosts <= {address for _, (address, _) in host_addresses()}


def test_nobody_came_is_zero() -> None:
    with Canary() as canary:
        assert canary.visitors() == 0


def test_visitors_are_counted_once_even_when_they_left_at_once() -> None:
    with Canary() as canary:
        port = next(port for host, port in canary.addresses if host == "127.0.0.1")
        for _ in range(2):
            socket.create_connection(("127.0.0.1", port)).close()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("\0" + canary.abstract)

        assert canary.visitors() == 3
        assert canary.visitors() == 0


def test_leaving_closes_every_listener() -> None:
    with Canary() as canary:
        port = next(port for host, port in canary.addresses if host == "127.0.0.1")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_abstract_names_are_never_the_same() -> None:
    assert Canary().abstract != Canary().abstract
